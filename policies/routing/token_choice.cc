#include "policies/routing/token_choice.h"

namespace epsim {
namespace {

class TokenChoicePolicy : public RoutingPolicy {
 public:
  void BeginStep(int64_t) override {}
  bool Routes(Layer) const override { return false; }
  void Route(Layer, const RoutingRequest& request, RoutingChoice* choice) const override {
    choice->experts.assign(request.own.begin(), request.own.end());
    choice->count.assign(request.own_count.begin(), request.own_count.end());
  }
  void EndStep(absl::Span<const int32_t>) override {}
};

}  // namespace

std::unique_ptr<RoutingPolicy> NewTokenChoice() { return std::make_unique<TokenChoicePolicy>(); }

}  // namespace epsim
