#include "policies/plugin/plugin_placement.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "policies/placement/placement_draft.h"
#include "policies/plugin/plugin_library.h"

namespace epsim {
namespace {

class PluginPlacementPolicy : public PlacementPolicy {
 public:
  PluginPlacementPolicy(std::unique_ptr<PluginInstance> instance, EpsimPlace* place, const PlacementShape& shape)
      : instance_(std::move(instance)), place_(place), shape_(shape) {}

  absl::StatusOr<Placement> Place(const PlacementRequest& request) override {
    PlacementDraft draft(shape_, request);
    std::vector<int32_t> asked;
    for (Layer layer : draft.layers()) asked.push_back(static_cast<int32_t>(Index(layer)));
    std::vector<int32_t> previous;
    if (request.previous != nullptr) previous = Phy2Log(*request.previous);
    const size_t slots = shape_.slots;
    std::vector<int32_t> phy2log = previous;
    phy2log.resize(shape_.layers * slots, EPSIM_NO_EXPERT);
    for (const int32_t layer : asked) {
      std::fill_n(phy2log.begin() + static_cast<std::ptrdiff_t>(layer * slots), slots, EPSIM_NO_EXPERT);
    }
    const EpsimPlacementRequest plain = {
        .load = request.window.tokens.data(),
        .steps_per_row = request.window.steps_per_row,
        .previous = request.previous != nullptr ? previous.data() : nullptr,
        .time_per_token = request.profile != nullptr ? request.profile->time_per_token.data() : nullptr,
        .layers_asked = asked.data(),
        .rows = request.window.rows,
        .asked = static_cast<int32_t>(asked.size()),
        .seed = request.random->Next()};
    RETURN_IF_ERROR(instance_->Do([&](void* state, char* error, size_t error_size) {
      return place_(state, &plain, phy2log.data(), error, error_size);
    }));
    for (Layer layer : draft.layers()) {
      RETURN_IF_ERROR(Take(absl::MakeConstSpan(phy2log).subspan(Index(layer) * slots, slots), layer, &draft));
    }
    return std::move(draft).Finish();
  }

 private:
  // [layers, slots]
  std::vector<int32_t> Phy2Log(const Placement& placement) const {
    static_assert(static_cast<int32_t>(kNoExpert) == EPSIM_NO_EXPERT);
    std::vector<int32_t> phy2log;
    phy2log.reserve(static_cast<size_t>(shape_.layers) * shape_.slots);
    for (int layer = 0; layer < shape_.layers; ++layer) {
      for (LogicalExpert expert : placement.experts_of_slots(Layer(layer))) {
        phy2log.push_back(static_cast<int32_t>(expert));
      }
    }
    return phy2log;
  }

  // Puts one layer, `phy2log` [slots], into the draft.
  absl::Status Take(absl::Span<const int32_t> phy2log, Layer layer, PlacementDraft* draft) const {
    const auto problem = [&](const auto&... what) {
      return instance_->Problem(absl::StrCat("layer ", Index(layer), what...));
    };
    std::vector<bool> held(shape_.experts);
    const absl::Span<LogicalExpert> experts = draft->experts_of_slots(layer);
    for (size_t slot = 0; slot < phy2log.size(); ++slot) {
      const int32_t expert = phy2log[slot];
      if (expert == EPSIM_NO_EXPERT) return problem(", slot ", slot, ": no expert is placed there");
      if (expert < 0 || expert >= shape_.experts) {
        return problem(", slot ", slot, ": expert ", expert, " is none of 0 to ", shape_.experts - 1);
      }
      held[expert] = true;
      experts[slot] = LogicalExpert(expert);
    }
    for (int32_t expert = 0; expert < shape_.experts; ++expert) {
      if (!held[expert]) return problem(": expert ", expert, " has no slot");
    }
    draft->OrderBySlot(layer);
    return absl::OkStatus();
  }

  const std::unique_ptr<PluginInstance> instance_;
  EpsimPlace* const place_;
  const PlacementShape shape_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewPluginPlacement(const Plugin& config, const PlacementShape& shape) {
  ASSIGN_OR_RETURN(const std::shared_ptr<const PluginLibrary> library, LoadPlugin(config));
  const EpsimPlacementRole* const role = library->plugin().placement;
  if (role == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("plugin ", library->path(), ": placement: the library has none"));
  }
  if (role->create == nullptr || role->destroy == nullptr || role->place == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("plugin ", library->path(), ": placement: create, destroy or place is null"));
  }
  const EpsimShape plain = PlainShape(shape);
  const auto create = [&](const char* options, void** state, char* error, size_t error_size) {
    return role->create(options, &plain, state, error, error_size);
  };
  ASSIGN_OR_RETURN(std::unique_ptr<PluginInstance> instance,
                   PluginInstance::New(library, "placement", create, role->destroy, config.options()));
  return std::make_unique<PluginPlacementPolicy>(std::move(instance), role->place, shape);
}

}  // namespace epsim
