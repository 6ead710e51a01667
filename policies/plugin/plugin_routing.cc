#include "policies/plugin/plugin_routing.h"

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "policies/plugin/plugin_library.h"

namespace epsim {
namespace {

class PluginRouting : public RoutingPolicy {
 public:
  PluginRouting(std::unique_ptr<PluginInstance> instance, const EpsimRoutingRole& role, const RoutingShape& shape)
      : instance_(std::move(instance)), role_(role), shape_(shape), routes_(shape.layers) {}

  void BeginStep(int64_t tokens) override {
    std::fill(routes_.begin(), routes_.end(), uint8_t{1});
    if (role_.begin_step != nullptr) role_.begin_step(instance_->state(), step_, tokens, routes_.data());
  }

  bool Routes(Layer layer) const override { return routes_[Index(layer)] != 0; }

  void Route(Layer layer, const RoutingRequest& request, RoutingChoice* choice) const override {
    absl::Status status = Ask(layer, request, choice);
    if (status.ok()) return;
    choice->experts.assign(request.own.begin(), request.own.end());
    choice->count.assign(request.own_count.begin(), request.own_count.end());
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!status_.ok() && Index(failed_layer_) <= Index(layer)) return;
    status_ = std::move(status);
    failed_layer_ = layer;
  }

  void EndStep(absl::Span<const int32_t> load) override {
    if (role_.end_step != nullptr) role_.end_step(instance_->state(), load.data());
    ++step_;
  }

  absl::Status status() const override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return status_;
  }

 private:
  absl::Status Ask(Layer layer, const RoutingRequest& request, RoutingChoice* choice) const {
    const size_t tokens = request.tokens, top_k = shape_.top_k;
    std::vector<int32_t> own(tokens * top_k, EPSIM_NO_EXPERT), experts(tokens * top_k, EPSIM_NO_EXPERT);
    for (size_t token = 0; token < tokens; ++token) {
      const auto begin = request.own.begin() + static_cast<std::ptrdiff_t>(token * top_k);
      std::copy(begin, begin + request.own_count[token], own.begin() + static_cast<std::ptrdiff_t>(token * top_k));
    }
    const EpsimRoutingRequest plain = {.scores = request.scores.data(),
                                       .own = own.data(),
                                       .step = step_,
                                       .layer = static_cast<int32_t>(layer),
                                       .tokens = request.tokens};
    RETURN_IF_ERROR(instance_->Do([&](const void* state, char* error, size_t error_size) {
      return role_.route(state, &plain, experts.data(), error, error_size);
    }));
    choice->experts.assign(tokens * top_k, 0);
    choice->count.assign(tokens, 0);
    std::vector<size_t> last_token(shape_.experts, tokens);
    for (size_t i = 0; i < experts.size(); ++i) {
      const size_t token = i / top_k;
      const int32_t expert = experts[i];
      const auto problem = [&](const auto&... what) {
        return instance_->Problem(absl::StrCat("step ", step_, ", layer ", Index(layer), ", token ", token,
                                               " of its rank: expert ", expert, what...));
      };
      if (expert == EPSIM_NO_EXPERT) continue;
      if (expert < 0 || expert >= shape_.experts) return problem(" is none of 0 to ", shape_.experts - 1);
      if (last_token[expert] == token) return problem(" stands twice");
      last_token[expert] = token;
      choice->experts[token * top_k + choice->count[token]++] = static_cast<uint16_t>(expert);
    }
    return absl::OkStatus();
  }

  const std::unique_ptr<PluginInstance> instance_;
  const EpsimRoutingRole& role_;
  const RoutingShape shape_;
  std::vector<uint8_t> routes_;  // [layers]
  int64_t step_ = 0;

  mutable std::mutex mutex_;
  mutable absl::Status status_;
  mutable Layer failed_layer_{};
};

}  // namespace

absl::StatusOr<std::unique_ptr<RoutingPolicy>> NewPluginRouting(const Plugin& config, const RoutingShape& shape) {
  ASSIGN_OR_RETURN(const std::shared_ptr<const PluginLibrary> library, LoadPlugin(config));
  const EpsimRoutingRole* const role = library->plugin().routing;
  if (role == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("plugin ", library->path(), ": routing: the library has none"));
  }
  if (role->create == nullptr || role->destroy == nullptr || role->route == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("plugin ", library->path(), ": routing: create, destroy or route is null"));
  }
  const EpsimRoutingShape plain = {
      .layers = shape.layers, .experts = shape.experts, .top_k = shape.top_k, .ranks = shape.ranks};
  const auto create = [&](const char* options, void** state, char* error, size_t error_size) {
    return role->create(options, &plain, state, error, error_size);
  };
  ASSIGN_OR_RETURN(std::unique_ptr<PluginInstance> instance,
                   PluginInstance::New(library, "routing", create, role->destroy, config.options()));
  return std::make_unique<PluginRouting>(std::move(instance), *role, shape);
}

}  // namespace epsim
