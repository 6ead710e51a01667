// A placement by a library: what the library is given, what becomes of its answer, and what is said of a wrong one.
#include "policies/plugin/plugin_placement.h"

#include <dlfcn.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr PlacementShape kShape{.layers = 2, .experts = 3, .slots = 4, .ranks = 2};

std::string PathOf(const std::string& name) { return std::string(EPSIM_PLUGINS) + "/lib" + name + ".so"; }

absl::StatusOr<std::unique_ptr<PlacementPolicy>> New(const std::string& name, const std::string& options,
                                                     const PlacementShape& shape = kShape) {
  PlacementPolicyConfig config;
  config.mutable_plugin()->set_library(PathOf(name));
  config.mutable_plugin()->set_options(options);
  return NewPlacementPolicy(config, shape);
}

// A request for kShape.
class PluginPlacement : public testing::Test {
 protected:
  PluginPlacement() {
    request_.window = {.rows = 1, .layers = 2, .experts = 3, .tokens = tokens_};
    request_.random = &random_;
  }

  // Without "plugin LIBRARY: placement: ".
  std::string Said(const absl::Status& status, const std::string& name = "faulty_plugin") {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    const std::string begin = absl::StrCat("plugin ", PathOf(name), ": placement: ");
    EXPECT_EQ(status.message().substr(0, begin.size()), begin);
    return std::string(status.message().substr(std::min(status.message().size(), begin.size())));
  }
  std::string ErrorOf(const std::string& fault) {
    return Said(New("faulty_plugin", fault).value()->Place(request_).status());
  }

  std::vector<double> tokens_ = {3, 1, 2, 0, 5, 0};
  RandomStream random_{7, "placement"};
  PlacementRequest request_;
};

MATCHER_P(HoldsExpert, expert, "") { return static_cast<int>(arg) == expert; }

// Layer 0: 3 -> 1.5 + 1.5; by load 2 to rank 0, 1.5 to rank 1, 1.5' to rank 0, where expert 0 is not yet, 1 to rank 1.
// Layer 1: 5 -> 2.5 + 2.5, one to each rank; the others, without load, by number: to rank 0, to rank 1.
TEST_F(PluginPlacement, IsWhatTheLibrarySays) {
  const Placement placement = New("example_plugin", "").value()->Place(request_).value();
  EXPECT_THAT(placement.experts_of_slots(Layer{0}),
              ElementsAre(HoldsExpert(2), HoldsExpert(0), HoldsExpert(0), HoldsExpert(1)));
  EXPECT_THAT(placement.experts_of_slots(Layer{1}),
              ElementsAre(HoldsExpert(1), HoldsExpert(0), HoldsExpert(1), HoldsExpert(2)));
  EXPECT_THAT(placement.replicas(Layer{0}, LogicalExpert{0}), ElementsAre(Slot{1}, Slot{2}));
}

// Rows [4, 0] and [0, 3]: all rows alike, expert 0 is heavier; at a decay of 1/2 its load is 2, that of expert 1 is 3.
TEST_F(PluginPlacement, TakesOptionsInTheLibrarysOwnSchema) {
  const PlacementShape shape{.layers = 1, .experts = 2, .slots = 3, .ranks = 3};
  const std::vector<double> tokens = {4, 0, 0, 3};
  request_.window = {.rows = 2, .layers = 1, .experts = 2, .tokens = tokens};
  const auto replicated = [&](const char* options) {
    const Placement placement = New("example_plugin", options, shape).value()->Place(request_).value();
    return placement.replicas(Layer{0}, LogicalExpert{0}).size() == 2 ? 0 : 1;
  };
  EXPECT_EQ(replicated(""), 0);
  EXPECT_EQ(replicated("decay = 1"), 0);
  EXPECT_EQ(replicated(" decay=0.5 "), 1);
  EXPECT_EQ(Said(New("example_plugin", "decay = 1.5", shape).status(), "example_plugin"),
            "options: decay: 1.5 is not in (0, 1]");
  EXPECT_EQ(Said(New("example_plugin", "decay = 1; speed = 2", shape).status(), "example_plugin"),
            "options: \"decay = 1; speed = 2\" is not understood; \"decay = 0.9\" would be");
}

TEST_F(PluginPlacement, GivesTheLibraryAllOfTheRequest) {
  const std::vector<double> tokens = {3, 1, 2, 0, 5, 0, 4, 0.5, 2, 1, 1, 1};
  request_.window = {.rows = 2, .layers = 2, .experts = 3, .steps_per_row = 5, .tokens = tokens};
  const uint64_t seed = RandomStream(7, "placement").Next();
  EXPECT_EQ(ErrorOf("place: tells"),
            absl::StrCat("2 layers 3 experts 4 slots 2 ranks 1 nodes 1 groups 5 steps a row seed ", seed,
                         " load [3 1 2 0 5 0 4 0.5 2 1 1 1] asked [0 1] phy2log [-1 -1 -1 -1 -1 -1 -1 -1]"));

  // Later: one layer, when a rank has lost its second slot.
  const Placement previous(kShape, {LogicalExpert{0}, LogicalExpert{1}, LogicalExpert{2}, LogicalExpert{1},
                                    LogicalExpert{2}, kNoExpert, LogicalExpert{0}, LogicalExpert{1}});
  const std::vector<double> time = {1, 2, 3, 4, 5, 6.5};
  const ExpertProfile profile{.layers = 2, .experts = 3, .time_per_token = time};
  const Layer asked[] = {Layer{1}};
  request_.window = {.rows = 1, .layers = 2, .experts = 3, .tokens = tokens_};
  request_.previous = &previous;
  request_.profile = &profile;
  request_.layers = asked;
  EXPECT_THAT(ErrorOf("place: tells"),
              HasSubstr(" load [3 1 2 0 5 0] asked [1] previous [0 1 2 1 2 -1 0 1] time [1 2 3 4 5 6.5] "
                        "phy2log [0 1 2 1 -1 -1 -1 -1]"));
}

TEST_F(PluginPlacement, DrawsOneNumberForEachRequest) {
  const auto policy = New("faulty_plugin", "place: tells").value();
  RandomStream same(7, "placement");
  for (int turn = 0; turn < 3; ++turn) {
    EXPECT_THAT(Said(policy->Place(request_).status()), HasSubstr(absl::StrCat("seed ", same.Next(), " ")));
  }
}

TEST_F(PluginPlacement, LeavesOtherLayersAlone) {
  const Placement previous(kShape, {LogicalExpert{2}, LogicalExpert{1}, LogicalExpert{0}, LogicalExpert{1},
                                    LogicalExpert{2}, LogicalExpert{2}, LogicalExpert{0}, LogicalExpert{1}});
  const Layer asked[] = {Layer{1}};
  request_.previous = &previous;
  request_.layers = asked;
  const Placement placement = New("faulty_plugin", "place: scribbles").value()->Place(request_).value();
  EXPECT_EQ(placement.experts_of_slots(Layer{0}), previous.experts_of_slots(Layer{0}));
  EXPECT_THAT(placement.experts_of_slots(Layer{1}),
              ElementsAre(HoldsExpert(0), HoldsExpert(1), HoldsExpert(2), HoldsExpert(0)));
}

TEST_F(PluginPlacement, RefusesWhatIsNoPlacement) {
  EXPECT_EQ(ErrorOf("place: too large"), "layer 1, slot 1: expert 3 is none of 0 to 2");
  EXPECT_EQ(ErrorOf("place: negative"), "layer 1, slot 1: expert -2 is none of 0 to 2");
  EXPECT_EQ(ErrorOf("place: left empty"), "layer 1, slot 2: no expert is placed there");
  EXPECT_EQ(ErrorOf("place: expert missing"), "layer 1: expert 1 has no slot");
}

TEST_F(PluginPlacement, PassesOnWhatTheLibrarySaysInOneLine) {
  EXPECT_EQ(ErrorOf("place: fails"), "the moon is full");
  EXPECT_EQ(ErrorOf("place: fails silently"), "fails without a reason (returns -3)");
  EXPECT_THAT(ErrorOf("place: fails loudly"), testing::MatchesRegex("x{1023}"));
  EXPECT_EQ(Said(New("faulty_plugin", "create: fails").status()), "options: \"create: fails\" is no fault");
  EXPECT_EQ(Said(New("faulty_plugin", "create: fails silently").status()), "fails without a reason (returns 7)");
  EXPECT_EQ(Said(New("faulty_plugin", "create: fails loudly").status()), std::string(1023, 'x'));
  EXPECT_EQ(Said(New("faulty_plugin", std::string("a\0b", 3)).status()), "options: the text has a zero byte in it");
}

TEST_F(PluginPlacement, NeedsTheRoleAndItsCalls) {
  EXPECT_EQ(Said(New("no_roles_plugin", "").status(), "no_roles_plugin"), "the library has none");
  EXPECT_EQ(Said(New("no_calls_plugin", "").status(), "no_calls_plugin"), "create, destroy or place is null");
  EXPECT_EQ(NewPluginPlacement(Plugin(), kShape).status(), absl::InvalidArgumentError("plugin: library: none named"));
}

TEST_F(PluginPlacement, EndsEveryInstanceThatWasMade) {
  void* const handle = dlopen(PathOf("faulty_plugin").c_str(), RTLD_NOW);
  ASSERT_NE(handle, nullptr) << dlerror();
  const int* const instances = static_cast<const int*>(dlsym(handle, "faulty_instances"));
  ASSERT_NE(instances, nullptr);
  EXPECT_EQ(*instances, 0);
  {
    const auto one = New("faulty_plugin", "").value(), another = New("faulty_plugin", "").value();
    EXPECT_EQ(*instances, 2);
    EXPECT_FALSE(New("faulty_plugin", "create: fails").ok());
    EXPECT_EQ(*instances, 2);
  }
  EXPECT_EQ(*instances, 0);
  dlclose(handle);
}

}  // namespace
}  // namespace epsim
