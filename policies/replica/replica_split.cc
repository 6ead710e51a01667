#include "policies/replica/replica_split.h"

#include <algorithm>
#include <numeric>

#include "engine/check.h"

namespace epsim {
namespace {

int64_t CeilDivide(int64_t a, int64_t b) { return a / b + (a % b != 0); }

constexpr uint32_t kNone = ~uint32_t{0};

}  // namespace

ReplicaSplit::ReplicaSplit(const Placement& placement, Layer layer, absl::Span<const int64_t> pairs_of_expert)
    : pairs_of_expert_(pairs_of_expert.begin(), pairs_of_expert.end()) {
  const PlacementShape& shape = placement.shape();
  const size_t experts = static_cast<size_t>(shape.experts);
  EPSIM_CHECK(pairs_of_expert.size() == experts);
  load_.resize(static_cast<size_t>(shape.ranks));
  first_.reserve(experts + 1);
  parts_.reserve(static_cast<size_t>(shape.slots));
  // The slots of a rank are consecutive: a division for each replica is saved.
  std::vector<uint16_t> rank_of_slot(static_cast<size_t>(shape.slots));
  for (size_t rank = 0, slot = 0; rank < load_.size(); ++rank) {
    for (int i = 0; i < shape.slots_per_rank(); ++i) rank_of_slot[slot++] = static_cast<uint16_t>(rank);
  }
  for (size_t e = 0; e < experts; ++e) {
    const size_t first = parts_.size();
    first_.push_back(static_cast<uint32_t>(first));
    for (const Slot slot : placement.replicas(layer, LogicalExpert(static_cast<int32_t>(e)))) {
      const uint16_t rank = rank_of_slot[Index(slot)];
      const auto known = std::find_if(parts_.begin() + static_cast<std::ptrdiff_t>(first), parts_.end(),
                                      [rank](const Part& part) { return part.rank == rank; });
      if (known == parts_.end()) {
        parts_.push_back({static_cast<uint16_t>(Index(slot)), rank, static_cast<uint32_t>(e), 0});
      }
    }
    if (parts_.size() - first == 1) {
      parts_[first].pairs = pairs_of_expert[e];
      load_[parts_[first].rank] += pairs_of_expert[e];
    } else if (pairs_of_expert[e] > 0) {
      replicated_.push_back(static_cast<uint32_t>(e));
    }
  }
  first_.push_back(static_cast<uint32_t>(parts_.size()));
  most_fixed_ = *std::max_element(load_.begin(), load_.end());
  std::sort(replicated_.begin(), replicated_.end(), [&](uint32_t a, uint32_t b) {
    return pairs_of_expert_[a] != pairs_of_expert_[b] ? pairs_of_expert_[a] > pairs_of_expert_[b] : a < b;
  });
}

void ReplicaSplit::DealToLeastLoaded() {
  std::vector<Part*> by_load;
  for (const uint32_t expert : replicated_) {
    by_load.clear();
    for (uint32_t p = first_[expert]; p < first_[expert + 1]; ++p) by_load.push_back(&parts_[p]);
    std::sort(by_load.begin(), by_load.end(), [&](const Part* a, const Part* b) {
      return load_[a->rank] != load_[b->rank] ? load_[a->rank] < load_[b->rank] : a < b;
    });
    // The pairs fill the least loaded ranks, `filled` of them, up to one level, like water: each further one takes part
    // if the pairs reach its load.
    int64_t sum = pairs_of_expert_[expert] + load_[by_load[0]->rank];  // Of the filled ranks, with the pairs.
    size_t filled = 1;
    while (filled < by_load.size()) {
      const int64_t next = load_[by_load[filled]->rank];
      if (sum <= next * static_cast<int64_t>(filled)) break;
      sum += next;
      ++filled;
    }
    const int64_t level = sum / static_cast<int64_t>(filled);
    int64_t more = sum % static_cast<int64_t>(filled);  // So many ranks get one more.
    std::sort(by_load.begin(), by_load.begin() + static_cast<std::ptrdiff_t>(filled));
    for (size_t i = 0; i < filled; ++i) {
      Part& part = *by_load[i];
      const int64_t full = level + (more > 0 ? 1 : 0);
      more -= more > 0 ? 1 : 0;
      part.pairs = full - load_[part.rank];
      load_[part.rank] = full;
    }
  }
}

void ReplicaSplit::LowerMaximum() {
  if (replicated_.empty()) return;
  const size_t ranks = load_.size();
  // The parts of replicated experts, by rank.
  std::vector<uint32_t> begin(ranks + 1), part_on_rank;
  for (const uint32_t e : replicated_) {
    for (uint32_t p = first_[e]; p < first_[e + 1]; ++p) ++begin[parts_[p].rank + size_t{1}];
  }
  std::partial_sum(begin.begin(), begin.end(), begin.begin());
  part_on_rank.resize(begin[ranks]);
  std::vector<uint32_t> place(begin.begin(), begin.end() - 1);
  for (const uint32_t e : replicated_) {
    for (uint32_t p = first_[e]; p < first_[e + 1]; ++p) part_on_rank[place[parts_[p].rank]++] = p;
  }

  int64_t bound = CeilDivide(std::accumulate(load_.begin(), load_.end(), int64_t{0}), static_cast<int64_t>(ranks));
  bound = std::max(bound, most_fixed_);
  // How a rank was reached: pairs of an expert move from part `from` to part `to`, which lies on the rank.
  std::vector<uint32_t> from(ranks), to(ranks), queue(ranks);
  std::vector<char> rank_seen(ranks), expert_seen(pairs_of_expert_.size());
  while (true) {
    std::fill(rank_seen.begin(), rank_seen.end(), 0);
    for (const uint32_t e : replicated_) expert_seen[e] = 0;
    size_t reached = 0;
    for (size_t rank = 0; rank < ranks; ++rank) {
      if (load_[rank] <= bound) continue;
      rank_seen[rank] = 1;
      from[rank] = to[rank] = kNone;
      queue[reached++] = static_cast<uint32_t>(rank);
    }
    if (reached == 0) return;
    uint32_t sink = kNone;
    for (size_t head = 0; head < reached && sink == kNone; ++head) {
      const uint32_t rank = queue[head];
      for (uint32_t i = begin[rank]; i < begin[rank + 1] && sink == kNone; ++i) {
        const Part& leaving = parts_[part_on_rank[i]];
        if (leaving.pairs == 0 || expert_seen[leaving.expert]) continue;
        expert_seen[leaving.expert] = 1;  // All its ranks are reached.
        for (uint32_t p = first_[leaving.expert]; p < first_[leaving.expert + 1]; ++p) {
          const uint32_t next = parts_[p].rank;
          if (rank_seen[next]) continue;
          rank_seen[next] = 1;
          from[next] = part_on_rank[i];
          to[next] = p;
          queue[reached++] = next;
          if (load_[next] < bound) {
            sink = next;
            break;
          }
        }
      }
    }
    if (sink == kNone) {
      int64_t sum = 0;
      for (size_t i = 0; i < reached; ++i) sum += load_[queue[i]];
      bound = CeilDivide(sum, static_cast<int64_t>(reached));
      continue;
    }
    int64_t moved = bound - load_[sink];
    uint32_t source = sink;
    for (; from[source] != kNone; source = parts_[from[source]].rank) {
      moved = std::min(moved, parts_[from[source]].pairs);
    }
    moved = std::min(moved, load_[source] - bound);
    for (uint32_t rank = sink; rank != source; rank = parts_[from[rank]].rank) {
      parts_[to[rank]].pairs += moved;
      parts_[from[rank]].pairs -= moved;
    }
    load_[sink] += moved;
    load_[source] -= moved;
  }
}

void ReplicaSplit::WriteWeights(absl::Span<uint32_t> pairs_of_slot) const {
  std::fill(pairs_of_slot.begin(), pairs_of_slot.end(), 0);
  for (const Part& part : parts_) {
    EPSIM_CHECK(part.pairs < int64_t{1} << 32);
    pairs_of_slot[part.slot] = static_cast<uint32_t>(part.pairs);
  }
}

}  // namespace epsim
