#include "policies/replica/round_robin_replica_choice.h"

#include "policies/replica/replica_lists.h"

namespace epsim {
namespace {

constexpr size_t kBlock = 1024;

class TurnReplicaChoice : public PerCallReplicaChoice {
 public:
  explicit TurnReplicaChoice(bool offset_by_ep_rank) : offset_by_ep_rank_(offset_by_ep_rank) {}

  void Deal(const Placement& placement, const RouterCall& call, absl::Span<uint16_t> slots) const override {
    const ReplicaLists replicas(placement, call.layer);
    std::vector<uint32_t> next(replicas.experts());  // Whose turn it is; 0 where there is one replica.
    std::vector<uint32_t> replicated;
    for (size_t e = 0; e < replicas.experts(); ++e) {
      if (replicas.count(e) > 1) replicated.push_back(static_cast<uint32_t>(e));
    }
    const size_t top_k = static_cast<size_t>(call.top_k);
    ReadIds(call, [&](const auto* ids) {
      uint16_t* slot = slots.data();
      for (size_t source = 0; source < call.begin.size(); ++source) {
        size_t block = 0, next_block = 0;  // The number of the next block, and the pair that it begins with.
        const auto start_block = [&] {
          const size_t offset = block + (offset_by_ep_rank_ ? source : 0);
          for (const uint32_t e : replicated) next[e] = static_cast<uint32_t>(offset % replicas.count(e));
          ++block;
          next_block += kBlock;
        };
        size_t pair = 0;
        for (int32_t token = call.begin[source]; token < call.end[source]; ++token, pair += top_k, slot += top_k) {
          const auto* chosen = ids + static_cast<size_t>(token) * top_k;
          const size_t valid = static_cast<size_t>(call.valid(token));
          for (size_t k = 0; k < valid; ++k) {
            while (pair + k >= next_block) start_block();
            const auto expert = chosen[k];
            slot[k] = replicas.slot(expert, next[expert]);
            next[expert] = next[expert] + 1 == replicas.count(expert) ? 0 : next[expert] + 1;
          }
        }
      }
    });
  }

  void Share(const Placement& placement, Layer layer, absl::Span<const uint32_t> pairs_of_expert,
             absl::Span<uint32_t> weight) const override {
    ShareEqually(placement, layer, pairs_of_expert, weight);
  }

 private:
  const bool offset_by_ep_rank_;
};

}  // namespace

std::unique_ptr<PerCallReplicaChoice> NewRoundRobinReplicaChoice(bool offset_by_ep_rank) {
  return std::make_unique<TurnReplicaChoice>(offset_by_ep_rank);
}

}  // namespace epsim
