#include "policies/plugin/plugin_replica_choice.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "policies/plugin/plugin_library.h"

namespace epsim {
namespace {

class PluginReplicaChoice : public FixedReplicaChoice {
 public:
  PluginReplicaChoice(std::unique_ptr<PluginInstance> instance, EpsimChooseReplicas* choose)
      : instance_(std::move(instance)), choose_(choose) {}

  void ChooseLayer(const Placement& placement, Layer layer, RandomStream* random, ReplicaTable* table) override {
    const PlacementShape& shape = placement.shape();
    EPSIM_CHECK(shape.slots <= 1 << 16);
    const size_t ranks = shape.ranks, experts = shape.experts;
    const absl::Span<uint16_t> slots =
        absl::MakeSpan(table->slot).subspan(Index(layer) * ranks * experts, ranks * experts);
    const uint64_t seed = random->Next();
    if (status_.ok()) status_ = Choose(placement, layer, seed, slots);
    if (status_.ok()) return;
    for (size_t i = 0; i < slots.size(); ++i) {
      slots[i] = static_cast<uint16_t>(Index(placement.replicas(layer, Expert(i % experts))[0]));
    }
  }

  absl::Status status() const override { return status_; }

 private:
  static LogicalExpert Expert(size_t expert) { return LogicalExpert(static_cast<int32_t>(expert)); }

  // Fills `slots` [ranks, experts].
  absl::Status Choose(const Placement& placement, Layer layer, uint64_t seed, absl::Span<uint16_t> slots) const {
    const EpsimShape shape = PlainShape(placement.shape());
    const size_t ranks = shape.ranks, experts = shape.experts;
    std::vector<int32_t> phy2log, replicas, first_replica = {0};
    for (const LogicalExpert expert : placement.experts_of_slots(layer)) {
      phy2log.push_back(static_cast<int32_t>(expert));
    }
    for (size_t expert = 0; expert < experts; ++expert) {
      for (const Slot slot : placement.replicas(layer, Expert(expert))) replicas.push_back(static_cast<int32_t>(slot));
      first_replica.push_back(static_cast<int32_t>(replicas.size()));
    }
    const EpsimReplicaRequest request = {.shape = &shape,
                                         .phy2log = phy2log.data(),
                                         .replicas = replicas.data(),
                                         .first_replica = first_replica.data(),
                                         .layer = static_cast<int32_t>(layer),
                                         .seed = seed};
    constexpr int32_t kNone = -1;
    std::vector<int32_t> chosen(ranks * experts, kNone);
    RETURN_IF_ERROR(instance_->Do([&](void* state, char* error, size_t error_size) {
      return choose_(state, &request, chosen.data(), error, error_size);
    }));
    for (size_t i = 0; i < chosen.size(); ++i) {
      const auto problem = [&](const auto&... what) {
        return instance_->Problem(absl::StrCat("layer ", Index(layer), ", source rank ", i / experts, ", expert ",
                                               i % experts, ": ", what...));
      };
      const int32_t slot = chosen[i];
      if (slot == kNone) return problem("no slot is chosen");
      if (slot < 0 || slot >= shape.slots) return problem("slot ", slot, " is none of 0 to ", shape.slots - 1);
      if (phy2log[slot] == EPSIM_NO_EXPERT) return problem("slot ", slot, " holds no expert");
      if (phy2log[slot] != static_cast<int32_t>(i % experts)) {
        return problem("slot ", slot, " holds expert ", phy2log[slot]);
      }
      slots[i] = static_cast<uint16_t>(slot);
    }
    return absl::OkStatus();
  }

  const std::unique_ptr<PluginInstance> instance_;
  EpsimChooseReplicas* const choose_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<FixedReplicaChoice>> NewPluginReplicaChoice(const Plugin& config) {
  ASSIGN_OR_RETURN(const std::shared_ptr<const PluginLibrary> library, LoadPlugin(config));
  const EpsimReplicaRole* const role = library->plugin().replica_choice;
  if (role == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("plugin ", library->path(), ": replica choice: the library has none"));
  }
  if (role->create == nullptr || role->destroy == nullptr || role->choose == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("plugin ", library->path(), ": replica choice: create, destroy or choose is null"));
  }
  ASSIGN_OR_RETURN(std::unique_ptr<PluginInstance> instance,
                   PluginInstance::New(library, "replica choice", role->create, role->destroy, config.options()));
  return std::make_unique<PluginReplicaChoice>(std::move(instance), role->choose);
}

}  // namespace epsim
