#include "policies/placement/topology_aware_placement.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "engine/status_macros.h"
#include "policies/placement/eplb_placement.h"
#include "policies/placement/layer_prediction.h"
#include "policies/placement/nearest_shares.h"

namespace epsim {
namespace {

constexpr int kRounds = 8;
constexpr size_t kRanksTried = 8, kPartnersTried = 8, kExpertsTried = 8;
constexpr int kMostFailures = 128;
constexpr int64_t kWorkOfTry = 128;  // What it takes besides its pairs, in pairs.
constexpr double kLeastGain = 1e-9;  // Relative: less is rounding.

// Moves the first `count` of `items` by `before` to the front, in order.
template <typename Item, typename Before>
void FirstInOrder(std::vector<Item>& items, size_t count, const Before& before) {
  count = std::min(count, items.size());
  std::partial_sort(items.begin(), items.begin() + static_cast<std::ptrdiff_t>(count), items.end(), before);
  items.resize(count);
}

// The search in one layer after another.
class Search {
 public:
  Search(const PlacementShape& shape, const PlacementRequest& request) : shape_(shape), prediction_(shape, request) {}

  // The best of `starts`, and what it could be changed to.  [slots], valid until the next call.
  absl::Span<const LogicalExpert> Improve(Layer layer, absl::Span<const absl::Span<const LogicalExpert>> starts) {
    prediction_.Begin(layer, starts[0]);
    best_time_ = prediction_.time();
    Keep();
    for (size_t i = 1; i < starts.size(); ++i) {
      prediction_.Place(starts[i]);
      KeepIfFaster();
    }
    prediction_.Place(best_);
    smooth_time_ = prediction_.smooth_time();
    tries_ = 0;
    work_before_ = prediction_.work();
    for (int round = 0; round < kRounds && !exhausted(); ++round) {
      const double before = smooth_time_;
      Balance();
      if (prediction_.counts_exchange()) SeekCompany();
      MoveReplicas();
      if (smooth_time_ == before) break;
    }
    return best_;
  }

 private:
  bool exhausted() const { return work() >= kTopologyAwareWork; }
  int64_t work() const { return tries_ * kWorkOfTry + prediction_.work() - work_before_; }
  size_t rank_of(size_t slot) const { return slot / shape_.slots_per_rank(); }
  static Slot SlotOf(size_t index) { return Slot(static_cast<int32_t>(index)); }

  void Keep() { best_.assign(prediction_.experts_of_slots().begin(), prediction_.experts_of_slots().end()); }
  void KeepIfFaster() {
    const double time = prediction_.time();
    if (!(time < best_time_)) return;
    best_time_ = time;
    Keep();
  }

  // Whether the change just made is to stay.
  bool Accept() {
    ++tries_;
    const double smooth_time = prediction_.smooth_time();
    if (!(smooth_time < smooth_time_ * (1 - kLeastGain))) return false;
    smooth_time_ = smooth_time;
    KeepIfFaster();
    return true;
  }
  bool TrySwap(size_t a, size_t b) {
    const absl::Span<const LogicalExpert> experts = prediction_.experts_of_slots();
    if (exhausted() || rank_of(a) == rank_of(b) || experts[a] == experts[b]) return false;
    prediction_.Swap(SlotOf(a), SlotOf(b));
    if (Accept()) return true;
    prediction_.Swap(SlotOf(a), SlotOf(b));
    return false;
  }
  bool TryAssign(size_t slot, LogicalExpert expert) {
    const LogicalExpert held = prediction_.experts_of_slots()[slot];
    if (exhausted() || held == expert || prediction_.replicas(held).size() < 2) return false;
    prediction_.Assign(SlotOf(slot), expert);
    if (Accept()) return true;
    prediction_.Assign(SlotOf(slot), held);
    return false;
  }

  std::vector<uint16_t> RanksBesides(size_t rank) const {
    std::vector<uint16_t> ranks;
    for (int r = 0; r < shape_.ranks; ++r) {
      if (static_cast<size_t>(r) != rank) ranks.push_back(static_cast<uint16_t>(r));
    }
    return ranks;
  }
  // Ranks in ascending order of expert time, the lowest first among equals.
  bool LessBusy(uint16_t a, uint16_t b) const {
    const double time_a = prediction_.expert_time(Rank(a)), time_b = prediction_.expert_time(Rank(b));
    return time_a != time_b ? time_a < time_b : a < b;
  }

  void Balance() {
    const size_t slots_per_rank = shape_.slots_per_rank();
    while (!exhausted()) {
      size_t busiest = 0;
      for (int rank = 1; rank < shape_.ranks; ++rank) {
        if (prediction_.expert_time(Rank(rank)) > prediction_.expert_time(Rank(static_cast<int32_t>(busiest)))) {
          busiest = rank;
        }
      }
      if (!Relieve(busiest * slots_per_rank, slots_per_rank)) return;
    }
  }
  // One swap that helps between slots [first, first + count) of a rank and the least busy ranks.
  bool Relieve(size_t first, size_t count) {
    std::vector<uint16_t> others = RanksBesides(rank_of(first));
    FirstInOrder(others, kRanksTried, [this](uint16_t a, uint16_t b) { return LessBusy(a, b); });
    for (uint16_t other : others) {
      for (size_t a = first; a < first + count; ++a) {
        for (size_t b = other * count; b < (other + 1) * count; ++b) {
          if (prediction_.load(SlotOf(b)) < prediction_.load(SlotOf(a)) && TrySwap(a, b)) return true;
        }
      }
    }
    return false;
  }

  // Swaps by the copies that they spare, as far as that can be told from each slot alone.
  void SeekCompany() {
    struct Candidate {
      double score;
      uint32_t a, b;
    };
    const auto better = [](const Candidate& c, const Candidate& d) {
      return c.score != d.score ? c.score > d.score : c.a != d.a ? c.a < d.a : c.b < d.b;
    };
    const size_t slots = shape_.slots, ranks = shape_.ranks;
    company_.resize(slots * ranks);
    for (size_t slot = 0; slot < slots; ++slot) {
      prediction_.CountCompany(SlotOf(slot), absl::MakeSpan(&company_[slot * ranks], ranks));
    }
    std::vector<Candidate> candidates, of_slot;
    for (size_t a = 0; a < slots; ++a) {
      of_slot.clear();
      const int32_t* const company_a = &company_[a * ranks];
      const size_t rank_a = rank_of(a);
      const double load_a = prediction_.load(SlotOf(a));
      for (size_t b = (rank_a + 1) * shape_.slots_per_rank(); b < slots; ++b) {
        const int32_t* const company_b = &company_[b * ranks];
        const size_t rank_b = rank_of(b);
        const int32_t spared = company_a[rank_b] - company_a[rank_a] + company_b[rank_a] - company_b[rank_b];
        if (spared <= 0) continue;
        const double load_b = prediction_.load(SlotOf(b));
        const double likeness = (std::min(load_a, load_b) + 1e-3) / (std::max(load_a, load_b) + 1e-3);
        of_slot.push_back({spared * likeness, static_cast<uint32_t>(a), static_cast<uint32_t>(b)});
      }
      FirstInOrder(of_slot, kPartnersTried, better);
      candidates.insert(candidates.end(), of_slot.begin(), of_slot.end());
    }
    std::sort(candidates.begin(), candidates.end(), better);
    int failures = 0;  // In a row.
    for (const Candidate& c : candidates) {
      failures = TrySwap(c.a, c.b) ? 0 : failures + 1;
      if (exhausted() || failures == kMostFailures) return;
    }
  }

  void MoveReplicas() {
    const auto slot_load = [this](LogicalExpert expert) {
      return prediction_.load(expert) / static_cast<double>(prediction_.replicas(expert).size());
    };
    std::vector<LogicalExpert> hot;
    for (size_t slot = 0; slot < static_cast<size_t>(shape_.slots) && !exhausted(); ++slot) {
      if (prediction_.replicas(prediction_.experts_of_slots()[slot]).size() < 2) continue;
      hot.clear();
      for (int expert = 0; expert < shape_.experts; ++expert) hot.push_back(LogicalExpert(expert));
      FirstInOrder(hot, kExpertsTried, [&](LogicalExpert x, LogicalExpert y) {
        return slot_load(x) != slot_load(y) ? slot_load(x) > slot_load(y) : x < y;
      });
      for (LogicalExpert expert : hot) {
        if (TryAssign(slot, expert)) break;
      }
    }
  }

  const PlacementShape shape_;
  LayerPrediction prediction_;
  double best_time_ = 0, smooth_time_ = 0;  // smooth_time_: of the placement at hand.
  std::vector<LogicalExpert> best_;         // [slots]
  std::vector<int32_t> company_;            // [slots, ranks]
  int64_t tries_ = 0, work_before_ = 0;     // Of this layer; before its search.
};

class TopologyAwarePlacementPolicy : public PlacementPolicy {
 public:
  explicit TopologyAwarePlacementPolicy(const PlacementShape& shape) : shape_(shape) {}

  absl::StatusOr<Placement> Place(const PlacementRequest& request) override {
    const std::vector<double> total = request.window.Total();
    const std::vector<float> weight(total.begin(), total.end());
    std::vector<PlacementDraft> starts;
    for (EplbPlacement::Mode mode : {EplbPlacement::GLOBAL, EplbPlacement::HIERARCHICAL}) {
      if (!CheckEplbShape(shape_, mode).ok()) continue;
      starts.emplace_back(shape_, request);
      FillByEplb(weight, shape_, mode, &starts.back());
    }
    PlacementDraft draft(shape_, request);
    Search search(shape_, request);
    for (Layer layer : draft.layers()) {
      std::vector<absl::Span<const LogicalExpert>> of_layer;
      for (PlacementDraft& start : starts) of_layer.push_back(start.experts_of_slots(layer));
      const absl::Span<const LogicalExpert> best = search.Improve(layer, of_layer);
      std::copy(best.begin(), best.end(), draft.experts_of_slots(layer).begin());
      draft.OrderBySlot(layer);
    }
    return std::move(draft).Finish();
  }

 private:
  const PlacementShape shape_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewTopologyAwarePlacement(const PlacementShape& shape) {
  RETURN_IF_ERROR(CheckWholeNodes("topology_aware", shape));
  return std::make_unique<TopologyAwarePlacementPolicy>(shape);
}

}  // namespace epsim
