// Do vllm and trtllm agree with DeepSeek's EPLB where the facts say so?  Outputs of deepseek-ai/EPLB from
// shared/data/golden/eplb_public.json; facts from shared/data/reference/policies.md.
#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/policies/placement/plan_once.h"

namespace epsim {
namespace {

using Json = nlohmann::json;

constexpr char kPath[] = EPSIM_SHARED_DATA "/golden/eplb_public.json";

class ReferenceGolden : public testing::Test {
 protected:
  void SetUp() override {
    std::ifstream file(kPath);
    if (!file) GTEST_SKIP() << "no " << kPath;
    cases_ = Json::parse(file).at("cases");
  }

  static PlacementShape Shape(const Json& golden) {
    return {.layers = golden.at("num_layers"),
            .experts = golden.at("num_logical"),
            .slots = golden.at("num_replicas"),
            .ranks = golden.at("num_gpus"),
            .nodes = golden.at("num_nodes"),
            .expert_groups = golden.at("num_groups")};
  }

  // How many layers the policy `config` places as the golden case.
  static int EqualLayers(const std::string& config, const Json& golden, const PlacementShape& shape) {
    std::vector<double> weight;
    for (const Json& layer : golden.at("weight")) {
      for (const Json& value : layer) weight.push_back(value.get<float>());
    }
    const Placement placement = PlanOnce(config, shape, {weight}).value();
    int equal = 0;
    for (int layer = 0; layer < shape.layers; ++layer) {
      equal += Json(Phy2Log(placement, layer)) == golden.at("phy2log").at(layer);
    }
    return equal;
  }

  Json cases_ = Json::array();
};

// The file says for each case whether float64 changes the slots: vLLM is EPLB in float64.
TEST_F(ReferenceGolden, VllmIsEplbInFloat64) {
  int same = 0, different = 0;
  for (const Json& golden : cases_) {
    PlacementShape shape = Shape(golden);
    // Where the groups do not divide, EPLB takes one node and no groups; vLLM asks first whether the ranks divide.
    if (shape.expert_groups % shape.nodes != 0) shape.nodes = shape.expert_groups = 1;
    const bool equal = EqualLayers("vllm {}", golden, shape) == shape.layers;
    EXPECT_EQ(equal, golden.at("float64_same_phy2log").get<bool>()) << golden.at("name");
    ++(equal ? same : different);
  }
  EXPECT_GE(same, 8);
  EXPECT_GE(different, 2);
}

// policies.md 4.2: all layers on floats without ties; 49 of 58 on counts.
TEST_F(ReferenceGolden, TrtllmIsGlobalEplbWhereNoLoadsTie) {
  const auto equal_layers = [this](const char* name) {
    const auto golden = std::find_if(cases_.begin(), cases_.end(), [&](const Json& c) { return c.at("name") == name; });
    EXPECT_NE(golden, cases_.end()) << name;
    return EqualLayers("trtllm {}", *golden, Shape(*golden));
  };
  EXPECT_EQ(equal_layers("uniform_float_global_64e_72r_8g"), 4);
  EXPECT_EQ(equal_layers("dsv3_58x256_288_32g_global"), 49);
  EXPECT_EQ(equal_layers("ties_int_tiny_8e_12r_4g"), 0);
}

}  // namespace
}  // namespace epsim
