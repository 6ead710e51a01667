#include "policies/placement/oracle_placement.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "engine/check.h"
#include "engine/status_macros.h"
#include "policies/placement/eplb_placement.h"
#include "policies/placement/nearest_shares.h"

namespace epsim {
namespace {

constexpr double kLeastGain = 1e-9;  // Relative: less is rounding.

// Sum over rows of value(row), in four lanes: as fast as they come, not as fast as one addition follows another.
template <typename Value>
double SumOverRows(size_t rows, const Value& value) {
  double lane[4] = {};
  size_t row = 0;
  for (; row + 4 <= rows; row += 4) {
    for (size_t i = 0; i < 4; ++i) lane[i] += value(row + i);
  }
  for (; row < rows; ++row) lane[0] += value(row);
  return (lane[0] + lane[1]) + (lane[2] + lane[3]);
}

// One layer's loads row by row, a placement of it, and what each rank has in each row.
class LayerRows {
 public:
  LayerRows(const PlacementShape& shape, const LoadWindow& window)
      : shape_(shape), window_(window), slots_per_rank_(shape.slots_per_rank()), rows_(window.rows) {}

  void Begin(Layer layer) {
    load_.resize(static_cast<size_t>(shape_.experts) * rows_);
    total_.assign(shape_.experts, 0);
    for (size_t row = 0; row < rows_; ++row) {
      const absl::Span<const double> of_row = window_.of(static_cast<int>(row), layer);
      for (size_t expert = 0; expert < of_row.size(); ++expert) {
        load_[expert * rows_ + row] = of_row[expert];
        total_[expert] += of_row[expert];
      }
    }
  }

  void Place(absl::Span<const LogicalExpert> experts) {
    experts_.assign(experts.begin(), experts.end());
    FindShares();
    rank_load_.assign(static_cast<size_t>(shape_.ranks) * rows_, 0);
    for (size_t slot = 0; slot < experts_.size(); ++slot) AddSlot(slot, slot / slots_per_rank_);
  }

  // Deals the replicas of the placement at hand anew.  A rank is full with slots_per_rank; nodes are not looked at, and
  // shares are those of one node while it deals.
  void Deal() {
    std::vector<size_t> order(experts_.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::vector<int32_t> replicas(shape_.experts);
    for (LogicalExpert expert : experts_) ++replicas[Index(expert)];
    const auto weight = [&](size_t slot) {
      const size_t expert = Index(experts_[slot]);
      return total_[expert] / replicas[expert];
    };
    std::vector<double> weights(experts_.size());
    for (size_t slot = 0; slot < experts_.size(); ++slot) weights[slot] = weight(slot);
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return weights[a] > weights[b]; });

    std::vector<double> rank_load(static_cast<size_t>(shape_.ranks) * rows_), rank_total(shape_.ranks), busiest(rows_);
    std::vector<size_t> filled(shape_.ranks);
    std::vector<LogicalExpert> dealt(experts_.size());
    for (size_t slot : order) {
      const size_t expert = Index(experts_[slot]);
      const double share = 1.0 / replicas[expert];
      size_t best = shape_.ranks;
      double best_growth = std::numeric_limits<double>::infinity();
      for (size_t rank = 0; rank < static_cast<size_t>(shape_.ranks); ++rank) {
        if (filled[rank] == slots_per_rank_) continue;
        const double* const before = &rank_load[rank * rows_];
        const double* const load = &load_[expert * rows_];
        const double growth = SumOverRows(
            rows_, [&](size_t row) { return std::max(0.0, before[row] + share * load[row] - busiest[row]); });
        if (growth < best_growth || (growth == best_growth && rank_total[rank] < rank_total[best])) {
          best = rank;
          best_growth = growth;
        }
      }
      for (size_t row = 0; row < rows_; ++row) {
        double& load = rank_load[best * rows_ + row];
        load += share * load_[expert * rows_ + row];
        busiest[row] = std::max(busiest[row], load);
      }
      rank_total[best] += weights[slot];
      dealt[best * slots_per_rank_ + filled[best]++] = experts_[slot];
    }
    Place(dealt);
  }

  double SumOfBusiest() const {
    double sum = 0;
    for (size_t row = 0; row < rows_; ++row) {
      double most = 0;
      for (int rank = 0; rank < shape_.ranks; ++rank) most = std::max(most, rank_load_[rank * rows_ + row]);
      sum += most;
    }
    return sum;
  }

  // Swaps slots of the rank that most of the sum is due to, as long as that helps.
  void ImproveBySwaps() {
    const size_t ranks = shape_.ranks;
    int64_t work = kOracleWork;
    double sum = SumOfBusiest();
    std::vector<double> least(rows_);  // Of each row: the busiest of the ranks that a swap leaves alone.
    std::vector<uint16_t> others;
    while (work > 0) {
      const size_t busiest = RankToRelieve();
      // The idlest partners first.
      others.clear();
      for (size_t rank = 0; rank < ranks; ++rank) {
        if (rank != busiest) others.push_back(static_cast<uint16_t>(rank));
      }
      std::vector<double> totals(ranks);
      for (size_t rank = 0; rank < ranks; ++rank) {
        totals[rank] = std::accumulate(RowsOf(rank), RowsOf(rank) + rows_, 0.0);
      }
      std::stable_sort(others.begin(), others.end(), [&](uint16_t a, uint16_t b) { return totals[a] < totals[b]; });
      bool swapped = false;
      for (uint16_t other : others) {
        if (work <= 0) break;
        work -= static_cast<int64_t>(rows_ * (ranks / 16 + slots_per_rank_ * slots_per_rank_));
        FindBusiestBesides(busiest, other, &least);
        if (SwapBest(busiest, other, least, &sum)) {
          swapped = true;
          break;
        }
      }
      if (!swapped) return;
    }
  }

  absl::Span<const LogicalExpert> experts() const { return experts_; }
  // Highest row of each expert, as weights for EPLB.  [experts]
  void AppendPeaks(std::vector<float>* weight) const {
    for (int expert = 0; expert < shape_.experts; ++expert) {
      const double* const rows = &load_[expert * rows_];
      weight->push_back(static_cast<float>(*std::max_element(rows, rows + rows_)));
    }
  }

 private:
  double* RowsOf(size_t rank) { return &rank_load_[rank * rows_]; }
  size_t NodeOf(size_t slot) const { return slot / (shape_.slots / shape_.nodes); }

  void AddSlot(size_t slot, size_t rank) {
    const double* const load = &load_[Index(experts_[slot]) * rows_];
    double* const rows = RowsOf(rank);
    for (size_t row = 0; row < rows_; ++row) rows[row] += share_[slot] * load[row];
  }

  // share_ [slots] and alone_ [slots]: whether the slot's expert has no other.
  void FindShares() {
    begin_.assign(shape_.experts + 1, 0);
    for (LogicalExpert expert : experts_) ++begin_[Index(expert) + 1];
    for (int expert = 0; expert < shape_.experts; ++expert) begin_[expert + 1] += begin_[expert];
    by_expert_.resize(experts_.size());
    next_.assign(begin_.begin(), begin_.end() - 1);
    for (size_t slot = 0; slot < experts_.size(); ++slot) {
      by_expert_[next_[Index(experts_[slot])]++] = Slot(static_cast<int32_t>(slot));
    }
    share_.resize(experts_.size());
    alone_.resize(experts_.size());
    shares_.resize(experts_.size());
    for (int expert = 0; expert < shape_.experts; ++expert) {
      const size_t count = begin_[expert + 1] - begin_[expert];
      const absl::Span<const Slot> replicas = absl::MakeConstSpan(by_expert_).subspan(begin_[expert], count);
      const absl::Span<double> shares = absl::MakeSpan(shares_).first(count);
      NearestShares(shape_, replicas, shares);
      for (size_t i = 0; i < count; ++i) {
        share_[Index(replicas[i])] = shares[i];
        alone_[Index(replicas[i])] = count == 1;
      }
    }
  }

  // The rank whose rows stand out of the others' by the largest sum; the lowest among equals.
  size_t RankToRelieve() {
    due_.assign(shape_.ranks, 0);
    for (size_t row = 0; row < rows_; ++row) {
      size_t first = 0;
      double most = -1, second = 0;
      for (size_t rank = 0; rank < static_cast<size_t>(shape_.ranks); ++rank) {
        const double load = rank_load_[rank * rows_ + row];
        if (load > most) {
          second = most;
          most = load;
          first = rank;
        } else {
          second = std::max(second, load);
        }
      }
      due_[first] += most - std::max(0.0, second);
    }
    return static_cast<size_t>(std::max_element(due_.begin(), due_.end()) - due_.begin());
  }

  void FindBusiestBesides(size_t a, size_t b, std::vector<double>* most) {
    std::fill(most->begin(), most->end(), 0.0);
    for (size_t rank = 0; rank < static_cast<size_t>(shape_.ranks); ++rank) {
      if (rank == a || rank == b) continue;
      const double* const rows = RowsOf(rank);
      for (size_t row = 0; row < rows_; ++row) (*most)[row] = std::max((*most)[row], rows[row]);
    }
  }

  // The swap between two ranks that lowers *sum most, if one does.
  bool SwapBest(size_t a, size_t b, const std::vector<double>& besides, double* sum) {
    const bool one_node = NodeOf(a * slots_per_rank_) == NodeOf(b * slots_per_rank_);
    const double* const rows_a = RowsOf(a);
    const double* const rows_b = RowsOf(b);
    double best = *sum * (1 - kLeastGain);
    size_t best_x = 0, best_y = 0;
    bool found = false;
    for (size_t x = a * slots_per_rank_; x < (a + 1) * slots_per_rank_; ++x) {
      if (!one_node && !alone_[x]) continue;
      const double* const load_x = &load_[Index(experts_[x]) * rows_];
      for (size_t y = b * slots_per_rank_; y < (b + 1) * slots_per_rank_; ++y) {
        if (experts_[x] == experts_[y] || (!one_node && !alone_[y])) continue;
        const double* const load_y = &load_[Index(experts_[y]) * rows_];
        const double after = SumOverRows(rows_, [&, share_x = share_[x], share_y = share_[y]](size_t row) {
          const double moved = share_x * load_x[row] - share_y * load_y[row];
          return std::max(besides[row], std::max(rows_a[row] - moved, rows_b[row] + moved));
        });
        if (!(after < best)) continue;
        best = after;
        best_x = x;
        best_y = y;
        found = true;
      }
    }
    if (!found) return false;
    std::swap(experts_[best_x], experts_[best_y]);
    std::swap(share_[best_x], share_[best_y]);
    std::swap(alone_[best_x], alone_[best_y]);
    // Anew, so that rounding does not add up.
    for (size_t rank : {a, b}) {
      std::fill(RowsOf(rank), RowsOf(rank) + rows_, 0.0);
      for (size_t slot = rank * slots_per_rank_; slot < (rank + 1) * slots_per_rank_; ++slot) AddSlot(slot, rank);
    }
    *sum = SumOfBusiest();
    return true;
  }

  const PlacementShape shape_;
  const LoadWindow window_;
  const size_t slots_per_rank_, rows_;
  std::vector<double> load_;            // [experts, rows]
  std::vector<double> total_;           // [experts]
  std::vector<LogicalExpert> experts_;  // [slots]
  std::vector<double> share_;           // [slots]
  std::vector<uint8_t> alone_;          // [slots]
  std::vector<double> rank_load_;       // [ranks, rows]
  std::vector<double> due_;             // [ranks]
  std::vector<size_t> begin_, next_;    // [experts + 1], [experts]
  std::vector<Slot> by_expert_;         // [slots]
  std::vector<double> shares_;          // [slots]
};

class OraclePlacementPolicy : public PlacementPolicy {
 public:
  explicit OraclePlacementPolicy(const PlacementShape& shape) : shape_(shape) {}

  absl::StatusOr<Placement> Place(const PlacementRequest& request) override {
    const LoadWindow& window = request.window;
    LayerRows rows(shape_, window);
    const std::vector<double> total = window.Total();
    std::vector<std::vector<float>> weights = {std::vector<float>(total.begin(), total.end())};
    if (window.rows > 1) {
      weights.emplace_back();
      for (int layer = 0; layer < shape_.layers; ++layer) {
        rows.Begin(Layer(layer));
        rows.AppendPeaks(&weights.back());
      }
    }
    std::vector<PlacementDraft> starts;
    for (const std::vector<float>& weight : weights) {
      for (EplbPlacement::Mode mode : {EplbPlacement::GLOBAL, EplbPlacement::HIERARCHICAL}) {
        if (!CheckEplbShape(shape_, mode).ok()) continue;
        if (mode == EplbPlacement::HIERARCHICAL && shape_.nodes == 1 && shape_.expert_groups == 1) continue;
        starts.emplace_back(shape_, request);
        FillByEplb(weight, shape_, mode, &starts.back());
      }
    }
    PlacementDraft draft(shape_, request);
    std::vector<LogicalExpert> best;
    for (Layer layer : draft.layers()) {
      rows.Begin(layer);
      double least = std::numeric_limits<double>::infinity();
      const auto keep_if_best = [&] {
        const double sum = rows.SumOfBusiest();
        if (!(sum < least)) return;
        least = sum;
        best.assign(rows.experts().begin(), rows.experts().end());
      };
      for (PlacementDraft& start : starts) {
        rows.Place(start.experts_of_slots(layer));
        keep_if_best();
      }
      EPSIM_CHECK(!best.empty());
      rows.Place(best);
      if (window.rows > 1) {  // One row has been dealt so already.
        rows.Deal();
        keep_if_best();
        rows.Place(best);
      }
      rows.ImproveBySwaps();
      keep_if_best();
      std::copy(best.begin(), best.end(), draft.experts_of_slots(layer).begin());
      draft.OrderBySlot(layer);
    }
    return std::move(draft).Finish();
  }

 private:
  const PlacementShape shape_;
};

}  // namespace

double SumOfBusiest(const PlacementShape& shape, const LoadWindow& window, Layer layer,
                    absl::Span<const LogicalExpert> experts) {
  LayerRows rows(shape, window);
  rows.Begin(layer);
  rows.Place(experts);
  return rows.SumOfBusiest();
}

absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewOraclePlacement(const PlacementShape& shape) {
  RETURN_IF_ERROR(CheckWholeNodes("oracle", shape));
  return std::make_unique<OraclePlacementPolicy>(shape);
}

}  // namespace epsim
