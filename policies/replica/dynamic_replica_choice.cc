#include "policies/replica/dynamic_replica_choice.h"

#include "policies/replica/replica_lists.h"

namespace epsim {
namespace {

uint64_t Mix(uint64_t state) {
  uint64_t z = state + 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

class AnyReplicaChoice : public PerCallReplicaChoice {
 public:
  void Deal(const Placement& placement, const RouterCall& call, absl::Span<uint16_t> slots) const override {
    const ReplicaLists replicas(placement, call.layer);
    const uint64_t key = Mix(Mix(call.random ^ static_cast<uint64_t>(call.step)) ^ Index(call.layer));
    ReadIds(call, [&](const auto* ids) {
      uint16_t* slot = slots.data();
      for (size_t source = 0; source < call.begin.size(); ++source) {
        for (int32_t token = call.begin[source]; token < call.end[source]; ++token, slot += call.top_k) {
          const auto* chosen = ids + static_cast<size_t>(token) * call.top_k;
          const int valid = call.valid(token);
          for (int k = 0; k < valid; ++k) {
            const uint64_t hash = Mix(key ^ (uint64_t{static_cast<uint32_t>(k)} << 32 | static_cast<uint32_t>(token)));
            const uint64_t which = (hash >> 32) * replicas.count(chosen[k]) >> 32;
            slot[k] = replicas.slot(chosen[k], static_cast<uint32_t>(which));
          }
        }
      }
    });
  }

  void Share(const Placement& placement, Layer layer, absl::Span<const uint32_t> pairs_of_expert,
             absl::Span<uint32_t> weight) const override {
    ShareEqually(placement, layer, pairs_of_expert, weight);
  }
};

}  // namespace

std::unique_ptr<PerCallReplicaChoice> NewDynamicReplicaChoice() { return std::make_unique<AnyReplicaChoice>(); }

}  // namespace epsim
