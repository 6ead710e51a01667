// Routing by a library: what the library is given, what becomes of its answer, and what is said of a wrong one.
#include "policies/plugin/plugin_routing.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr RoutingShape kShape{.layers = 2, .experts = 4, .top_k = 3, .ranks = 2};

std::string PathOf(const std::string& name) { return std::string(EPSIM_PLUGINS) + "/lib" + name + ".so"; }

absl::StatusOr<std::unique_ptr<RoutingPolicy>> New(const std::string& name, const std::string& options) {
  RoutingPolicyConfig config;
  config.mutable_plugin()->set_library(PathOf(name));
  config.mutable_plugin()->set_options(options);
  return NewRoutingPolicy(config, kShape);
}

// Without "plugin LIBRARY: routing: ".
std::string Said(const absl::Status& status, const std::string& name = "faulty_plugin") {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  const std::string begin = absl::StrCat("plugin ", PathOf(name), ": routing: ");
  EXPECT_EQ(status.message().substr(0, begin.size()), begin);
  return std::string(status.message().substr(std::min(status.message().size(), begin.size())));
}

// Two tokens; the second has two experts only.
class PluginRouting : public testing::Test {
 protected:
  RoutingRequest request() const { return {.tokens = 2, .scores = scores_, .own = own_, .own_count = own_count_}; }

  // What is said when both layers of the first step have been routed in a faulty way.
  std::string ErrorOf(const std::string& fault) {
    const std::unique_ptr<RoutingPolicy> policy = New("faulty_plugin", fault).value();
    policy->BeginStep(2);
    RoutingChoice choice;
    for (const Layer layer : {Layer{1}, Layer{0}}) {
      policy->Route(layer, request(), &choice);
      EXPECT_EQ(choice.count, own_count_);  // The router's, to go on with until somebody asks.
      EXPECT_EQ(choice.experts, own_);
    }
    return Said(policy->status());
  }

  const std::vector<float> scores_ = {0.5f, 0.25f, 0.125f, 0.375f, 1, 3, 2, 0};
  const std::vector<uint16_t> own_ = {0, 3, 1, 1, 2, 9};
  const std::vector<uint8_t> own_count_ = {3, 2};
};

TEST_F(PluginRouting, IsWhatTheLibrarySays) {
  const std::unique_ptr<RoutingPolicy> policy = New("example_plugin", "keep = 2").value();
  RoutingChoice choice;
  policy->BeginStep(2);
  for (const Layer layer : {Layer{0}, Layer{1}}) {
    EXPECT_TRUE(policy->Routes(layer));
    policy->Route(layer, request(), &choice);
    EXPECT_THAT(choice.count, ElementsAre(2, 2));
    EXPECT_THAT(choice.experts, ElementsAre(0, 3, testing::_, 1, 2, testing::_));
  }
  EXPECT_EQ(policy->status(), absl::OkStatus());
}

// In whatever order, and with places left empty; a token may go to none.
TEST_F(PluginRouting, TakesTheExpertsThatAreThere) {
  RoutingChoice choice;
  const std::unique_ptr<RoutingPolicy> policy = New("faulty_plugin", "").value();
  policy->BeginStep(2);
  policy->Route(Layer{0}, request(), &choice);
  EXPECT_THAT(choice.count, ElementsAre(3, 2));
  EXPECT_THAT(choice.experts, ElementsAre(1, 3, 0, 2, 1, testing::_));
  const std::unique_ptr<RoutingPolicy> none = New("faulty_plugin", "route: none").value();
  none->BeginStep(2);
  none->Route(Layer{0}, request(), &choice);
  EXPECT_THAT(choice.count, ElementsAre(3, 0));
  EXPECT_EQ(none->status(), absl::OkStatus());
}

TEST_F(PluginRouting, LeavesTheLayersToTheRouterThatTheLibraryLeaves) {
  const std::unique_ptr<RoutingPolicy> policy = New("faulty_plugin", "").value();
  for (int step = 0; step < 4; ++step) {
    policy->BeginStep(2);
    EXPECT_EQ(policy->Routes(Layer{0}), step % 2 == 0);
    EXPECT_TRUE(policy->Routes(Layer{1}));
    policy->EndStep(std::vector<int32_t>(8));
  }
}

TEST_F(PluginRouting, GivesTheLibraryAllOfTheRequest) {
  EXPECT_EQ(ErrorOf("route: tells"),
            "2 layers 4 experts 3 top_k remembered 0 step 0 layer 0 tokens 2 scores [0.5 0.25 0.125 0.375 1 3 2 0]"
            " own [0 3 1 1 2 -1] experts [-1 -1 -1 -1 -1 -1]");
  const std::unique_ptr<RoutingPolicy> policy = New("faulty_plugin", "end: remembers").value();
  RoutingChoice choice;
  policy->BeginStep(2);
  policy->EndStep(std::vector<int32_t>{1, 2, 3, 4, 5, 6, 7, 88});
  policy->BeginStep(2);
  policy->Route(Layer{1}, request(), &choice);
  EXPECT_THAT(Said(policy->status()), HasSubstr("remembered 88 step 1 layer 1"));
}

// Of several failures the one in the first layer is told, whichever thread came first.
TEST_F(PluginRouting, RefusesWhatIsNoChoice) {
  EXPECT_EQ(ErrorOf("route: too large"), "step 0, layer 0, token 1 of its rank: expert 4 is none of 0 to 3");
  EXPECT_EQ(ErrorOf("route: negative"), "step 0, layer 0, token 1 of its rank: expert -2 is none of 0 to 3");
  EXPECT_EQ(ErrorOf("route: twice"), "step 0, layer 0, token 1 of its rank: expert 2 stands twice");
  EXPECT_EQ(ErrorOf("route: fails"), "no way from layer 0");
}

TEST_F(PluginRouting, NeedsTheRoleItsCallsAndItsOptions) {
  EXPECT_EQ(Said(New("no_roles_plugin", "").status(), "no_roles_plugin"), "the library has none");
  EXPECT_EQ(Said(New("no_calls_plugin", "").status(), "no_calls_plugin"), "create, destroy or route is null");
  EXPECT_EQ(Said(New("example_plugin", "keep = 4").status(), "example_plugin"), "options: keep: 4 is none of 1 to 3");
  EXPECT_EQ(NewPluginRouting(Plugin(), kShape).status(), absl::InvalidArgumentError("plugin: library: none named"));
}

}  // namespace
}  // namespace epsim
