#include "policies/placement/swift_placement.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <queue>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "policies/placement/placement_change.h"
#include "policies/placement/slot_alignment.h"

namespace epsim {
namespace {

// The load of the most loaded rank, every replica of an expert carrying as much.
double HottestLoad(absl::Span<const LogicalExpert> experts_of_slots, absl::Span<const double> load,
                   int slots_per_rank) {
  std::vector<int> count(load.size());
  for (LogicalExpert expert : experts_of_slots) {
    if (expert != kNoExpert) ++count[Index(expert)];
  }
  double hottest = 0;
  for (size_t begin = 0; begin < experts_of_slots.size(); begin += slots_per_rank) {
    double rank_load = 0;
    for (LogicalExpert expert : experts_of_slots.subspan(begin, slots_per_rank)) {
      if (expert != kNoExpert) rank_load += load[Index(expert)] / count[Index(expert)];
    }
    hottest = std::max(hottest, rank_load);
  }
  return hottest;
}

// One layer while it is planned anew: steps 2 to 6.
class LayerPlan {
 public:
  LayerPlan(const SwiftPlacement& config, const PlacementShape& shape, absl::Span<const double> load)
      : config_(config),
        experts_(shape.experts),
        ranks_(shape.ranks),
        width_(shape.slots_per_rank()),
        load_(load),
        mean_rank_load_(std::accumulate(load.begin(), load.end(), 0.0) / shape.ranks),
        slots_(shape.slots),
        home_(shape.experts, kNone),
        share_(shape.experts),
        rank_load_(shape.ranks),
        senders_(shape.ranks) {}

  std::vector<LogicalExpert> Plan(absl::Span<const LogicalExpert> before) {
    FixFirstSlots(before);
    PlaceCopies(SplitLargest());
    FillOpenSlots(before);
    for (uint32_t swap = 0; swap < config_.max_swap_times() && SwapHottest(); ++swap) {
    }
    std::vector<LogicalExpert> after;
    for (const PlannedSlot& slot : slots_) after.push_back(LogicalExpert(slot.expert));
    return after;
  }

 private:
  static constexpr int kNone = -1;

  struct PlannedSlot {
    int expert = kNone;    // None: open.
    bool movable = false;  // Its expert is where it was before.
  };

  void FixFirstSlots(absl::Span<const LogicalExpert> before) {
    open_.assign(ranks_, 0);
    for (int position = 0; position < width_; ++position) {
      for (int rank = 0; rank < ranks_; ++rank) {
        const int slot = rank * width_ + position;
        const int expert = static_cast<int>(before[slot]);
        if (before[slot] == kNoExpert || home_[expert] != kNone) {
          ++open_[rank];
          continue;
        }
        home_[expert] = rank;
        slots_[slot] = {expert, true};
      }
    }
  }

  // The copies to place, in the order in which they are placed; share_: load per copy with all of them.
  std::vector<int> SplitLargest() {
    std::vector<std::pair<double, int>> experts;
    for (int expert = 0; expert < experts_; ++expert) experts.emplace_back(load_[expert], expert);
    std::copy(load_.begin(), load_.end(), share_.begin());
    std::vector<int> redundant(experts_);
    std::priority_queue<std::pair<double, int>> largest({}, std::move(experts));
    for (int left = std::accumulate(open_.begin(), open_.end(), 0); left > 0 && !largest.empty();) {
      const auto [share, expert] = largest.top();
      largest.pop();
      int& r = redundant[expert];
      if (r + 1 >= ranks_) continue;  // A copy on every rank.
      share_[expert] = share * (r + 1) / (r + 2);
      largest.emplace(share_[expert], expert);
      ++r;
      --left;
    }
    std::vector<int> copies;
    for (int expert = 0; expert < experts_; ++expert) copies.insert(copies.end(), redundant[expert], expert);
    std::stable_sort(copies.begin(), copies.end(), [&](int a, int b) { return share_[a] > share_[b]; });
    return copies;
  }

  void PlaceCopies(const std::vector<int>& copies) {
    SumRankLoads();
    for (int expert : copies) {
      int best = kNone;
      for (int rank = 0; rank < ranks_; ++rank) {
        if (open_[rank] == 0 || (best != kNone && rank_load_[rank] >= rank_load_[best])) continue;
        if (Holds(rank, expert) || !MaySend(home_[expert], rank)) continue;
        best = rank;
      }
      if (best != kNone) Receive(best, expert);
    }
  }

  void FillOpenSlots(absl::Span<const LogicalExpert> before) {
    if (std::accumulate(open_.begin(), open_.end(), 0) == 0) return;
    std::vector<int> count(experts_);
    for (const PlannedSlot& slot : slots_) {
      if (slot.expert != kNone) ++count[slot.expert];
    }
    for (int expert = 0; expert < experts_; ++expert) share_[expert] = load_[expert] / count[expert];
    std::vector<char> here(experts_), was_here(experts_);
    for (int rank = 0; rank < ranks_; ++rank) {
      if (open_[rank] == 0) continue;
      std::fill(here.begin(), here.end(), false);
      std::fill(was_here.begin(), was_here.end(), false);
      for (int slot = rank * width_; slot < (rank + 1) * width_; ++slot) {
        if (slots_[slot].expert != kNone) here[slots_[slot].expert] = true;
        if (before[slot] != kNoExpert) was_here[Index(before[slot])] = true;
      }
      while (open_[rank] > 0) {
        const auto preference = [&](int expert) {
          const bool cheap = was_here[expert] || MaySend(home_[expert], rank);
          return std::tuple(!here[expert], cheap, share_[expert], expert);
        };
        int best = 0;
        for (int expert = 1; expert < experts_; ++expert) {
          if (preference(expert) > preference(best)) best = expert;
        }
        Receive(rank, best);
        here[best] = true;
        share_[best] = load_[best] / ++count[best];
      }
    }
    SumRankLoads();
  }

  // Step 6, once.  False: no exchange pays.
  bool SwapHottest() {
    std::vector<int> by_load(ranks_);
    std::iota(by_load.begin(), by_load.end(), 0);
    std::stable_sort(by_load.begin(), by_load.end(), [&](int a, int b) { return rank_load_[a] < rank_load_[b]; });
    const int hot = by_load.back();
    by_load.pop_back();
    const double least_gain = config_.swap_gain() * mean_rank_load_;
    for (int cool : by_load) {
      // The maximum of the two cannot fall below their mean; this rank and those to come are too hot to help.
      if ((rank_load_[hot] - rank_load_[cool]) / 2 < least_gain * (1 - 1e-9)) return false;
      if (!MaySend(hot, cool) || !MaySend(cool, hot)) continue;
      int from_hot = kNone, from_cool = kNone;
      double least = rank_load_[hot];
      Candidates(cool, hot, &cool_candidates_);
      for (int a = hot * width_; a < (hot + 1) * width_; ++a) {
        if (!slots_[a].movable || Holds(cool, slots_[a].expert)) continue;
        for (int b : cool_candidates_) {
          const double up = share_[slots_[a].expert], down = share_[slots_[b].expert];
          const double highest = std::max(rank_load_[hot] - up + down, rank_load_[cool] - down + up);
          if (highest >= least) continue;
          least = highest;
          from_hot = a;
          from_cool = b;
        }
      }
      if (from_hot == kNone || rank_load_[hot] - least < least_gain) continue;
      const double moved = share_[slots_[from_hot].expert] - share_[slots_[from_cool].expert];
      rank_load_[hot] -= moved;
      rank_load_[cool] += moved;
      std::swap(slots_[from_hot].expert, slots_[from_cool].expert);
      slots_[from_hot].movable = slots_[from_cool].movable = false;
      senders_[hot].push_back(cool);
      senders_[cool].push_back(hot);
      return true;
    }
    return false;
  }

  // Slots of `rank` whose experts may go to `other`.
  void Candidates(int rank, int other, std::vector<int>* slots) const {
    slots->clear();
    for (int slot = rank * width_; slot < (rank + 1) * width_; ++slot) {
      if (slots_[slot].movable && !Holds(other, slots_[slot].expert)) slots->push_back(slot);
    }
  }

  bool Holds(int rank, int expert) const {
    for (int slot = rank * width_; slot < (rank + 1) * width_; ++slot) {
      if (slots_[slot].expert == expert) return true;
    }
    return false;
  }

  bool MaySend(int from, int to) const {
    const auto sent = std::count(senders_[to].begin(), senders_[to].end(), from);
    return static_cast<uint64_t>(sent) < config_.num_max_com();
  }

  // Puts a copy of `expert` into the first open slot of `rank`.
  void Receive(int rank, int expert) {
    int slot = kNone;
    for (int i = (rank + 1) * width_ - 1; i >= rank * width_; --i) {
      if (slots_[i].expert == kNone) slot = i;
      if (slots_[i].expert == expert) slots_[i].movable = false;  // Twice on this rank.
    }
    EPSIM_CHECK(slot != kNone);
    slots_[slot] = {expert, false};
    --open_[rank];
    rank_load_[rank] += share_[expert];
    senders_[rank].push_back(home_[expert]);
  }

  void SumRankLoads() {
    for (int rank = 0; rank < ranks_; ++rank) {
      rank_load_[rank] = 0;
      for (int slot = rank * width_; slot < (rank + 1) * width_; ++slot) {
        if (slots_[slot].expert != kNone) rank_load_[rank] += share_[slots_[slot].expert];
      }
    }
  }

  const SwiftPlacement& config_;
  const int experts_, ranks_, width_;
  const absl::Span<const double> load_;  // [experts]
  const double mean_rank_load_;
  std::vector<PlannedSlot> slots_;
  std::vector<int> home_;      // [experts] The rank of the fixed slot.
  std::vector<int> open_;      // [ranks] Slots without an expert so far.
  std::vector<double> share_;  // [experts] Load per copy.
  std::vector<double> rank_load_;
  std::vector<std::vector<int>> senders_;  // [ranks] The rank at the other end of each transfer to this one.
  std::vector<int> cool_candidates_;
};

class SwiftPlacementPolicy : public PlacementPolicy {
 public:
  SwiftPlacementPolicy(const SwiftPlacement& config, const PlacementShape& shape) : config_(config), shape_(shape) {}

  absl::StatusOr<Placement> Place(const PlacementRequest& request) override {
    struct Planned {
      Layer layer;
      std::vector<LogicalExpert> experts_of_slots;
      double after_over_before;
      bool forced;
    };
    const std::vector<double> total = request.window.Total();
    PlacementChange change(shape_, request);
    std::vector<Planned> planned;
    double sum_before = 0, sum_after = 0;
    for (Layer layer : change.layers()) {
      const absl::Span<const double> load =
          absl::MakeConstSpan(total).subspan(Index(layer) * shape_.experts, shape_.experts);
      const absl::Span<const LogicalExpert> old = change.start().experts_of_slots(layer);
      const double mean = std::accumulate(load.begin(), load.end(), 0.0) / shape_.ranks;
      const double before = HottestLoad(old, load, shape_.slots_per_rank());
      const bool forced = change.HasEmptySlots(layer);
      sum_before += before;
      sum_after += before;
      if (!forced && (mean == 0 || before / mean < config_.imbalance_threshold())) continue;
      std::vector<LogicalExpert> experts = LayerPlan(config_, shape_, load).Plan(old);
      AlignSlots(old, shape_.slots_per_rank(), absl::MakeSpan(experts));
      const double after = HottestLoad(experts, load, shape_.slots_per_rank());
      if (!forced && after >= before) continue;
      sum_after += after - before;
      planned.push_back({layer, std::move(experts), before > 0 ? after / before : 1, forced});
    }
    const bool pays = sum_after < config_.change_threshold() * sum_before;
    for (Planned& plan : planned) {
      if (pays || plan.forced) change.Change(plan.layer, std::move(plan.experts_of_slots), plan.after_over_before);
    }
    PlacementChange::Result result = std::move(change).Finish();
    change_order_ = std::move(result.order);
    return std::move(result.placement);
  }

  std::vector<Layer> change_order() const override { return change_order_; }

 private:
  const SwiftPlacement config_;
  const PlacementShape shape_;
  std::vector<Layer> change_order_;
};

absl::Status CheckThreshold(const char* what, double value) {
  if (std::isfinite(value) && value >= 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("swift: ", what, ": ", value, " is not a finite number >= 0"));
}

}  // namespace

absl::StatusOr<SwiftPlacement> CompleteSwiftPlacement(const SwiftPlacement& config) {
  SwiftPlacement complete = config;
  if (!config.has_imbalance_threshold()) complete.set_imbalance_threshold(1.01);
  if (!config.has_num_max_com()) complete.set_num_max_com(1);
  if (!config.has_max_swap_times()) complete.set_max_swap_times(100);
  if (!config.has_swap_gain()) complete.set_swap_gain(0.01);
  if (!config.has_change_threshold()) complete.set_change_threshold(0.95);
  RETURN_IF_ERROR(CheckThreshold("imbalance_threshold", complete.imbalance_threshold()));
  RETURN_IF_ERROR(CheckThreshold("swap_gain", complete.swap_gain()));
  RETURN_IF_ERROR(CheckThreshold("change_threshold", complete.change_threshold()));
  if (complete.num_max_com() == 0) {
    return absl::InvalidArgumentError("swift: num_max_com: 0 transfers place no copy; 1 or more would fit");
  }
  return complete;
}

absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewSwiftPlacement(const SwiftPlacement& config,
                                                                   const PlacementShape& shape) {
  ASSIGN_OR_RETURN(SwiftPlacement complete, CompleteSwiftPlacement(config));
  return std::make_unique<SwiftPlacementPolicy>(complete, shape);
}

}  // namespace epsim
