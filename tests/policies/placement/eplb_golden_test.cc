// Is EPLB equal to the reference?  Outputs of deepseek-ai/EPLB eplb.py (d52c72d) with a stable sort, from
// shared/data/golden/eplb_public.json.
#include <fstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "policies/placement/eplb_placement.h"

namespace epsim {
namespace {

using Json = nlohmann::json;

constexpr char kPath[] = EPSIM_SHARED_DATA "/golden/eplb_public.json";

class EplbGolden : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    std::ifstream file(kPath);
    if (!file) GTEST_SKIP() << "no " << kPath;
    golden_ = Json::parse(file);
    for (const Json& candidate : golden_.at("cases")) {
      if (candidate.at("name") == GetParam()) case_ = &candidate;
    }
    ASSERT_NE(case_, nullptr) << GetParam() << " is not in " << kPath;
    shape_ = {.layers = case_->at("num_layers"),
              .experts = case_->at("num_logical"),
              .slots = case_->at("num_replicas"),
              .ranks = case_->at("num_gpus"),
              .nodes = case_->at("num_nodes"),
              .expert_groups = case_->at("num_groups")};
  }

  void ExpectGolden(const Placement& placement) const {
    for (int layer = 0; layer < shape_.layers; ++layer) {
      std::vector<size_t> phy2log, logcnt;
      std::vector<std::vector<size_t>> log2phy;
      for (LogicalExpert expert : placement.experts_of_slots(Layer(layer))) phy2log.push_back(Index(expert));
      for (int expert = 0; expert < shape_.experts; ++expert) {
        log2phy.emplace_back();
        for (Slot slot : placement.replicas(Layer(layer), LogicalExpert(expert))) log2phy.back().push_back(Index(slot));
        logcnt.push_back(log2phy.back().size());
      }
      EXPECT_EQ(Json(phy2log), case_->at("phy2log").at(layer)) << "layer " << layer;
      EXPECT_EQ(Json(log2phy), case_->at("log2phy").at(layer)) << "layer " << layer;
      EXPECT_EQ(Json(logcnt), case_->at("logcnt").at(layer)) << "layer " << layer;
    }
  }

  Json golden_;
  const Json* case_ = nullptr;
  PlacementShape shape_;
};

TEST_P(EplbGolden, PlacesWeightsAsTheReference) {
  std::vector<float> weight;
  for (const Json& layer : case_->at("weight")) {
    for (const Json& value : layer) weight.push_back(value.get<float>());
  }
  ExpectGolden(Eplb(weight, shape_, EplbPlacement::AUTO));
}

class EplbGoldenCounts : public EplbGolden {};

TEST_P(EplbGoldenCounts, PlacesAWindowOfCountsAsTheReference) {
  // Two rows: a third of the tokens, and the others.
  std::vector<double> tokens, rest;
  for (const Json& layer : case_->at("weight")) {
    for (const Json& value : layer) {
      tokens.push_back(static_cast<double>(value.get<int64_t>() / 3));
      rest.push_back(value.get<double>() - tokens.back());
    }
  }
  tokens.insert(tokens.end(), rest.begin(), rest.end());
  RandomStream random(1, "eplb_golden_test");
  PlacementRequest request;
  request.window = {.rows = 2, .layers = shape_.layers, .experts = shape_.experts, .tokens = tokens};
  request.random = &random;
  PlacementPolicyConfig config;
  config.mutable_eplb();
  ExpectGolden(NewPlacementPolicy(config, shape_).value()->Place(request).value());
}

std::string Name(const testing::TestParamInfo<const char*>& info) { return info.param; }

INSTANTIATE_TEST_SUITE_P(FloatWeights, EplbGolden,
                         testing::Values("uniform_float_global_64e_72r_8g", "zipf_float_hier_256e_288r_32g"), Name);

const auto kCounts = testing::Values("readme", "readme_global", "ties_int_small_16e_24r_4g", "ties_int_tiny_8e_12r_4g",
                                     "single_gpu_32e_40r", "replicas_eq_experts_64e_16g",
                                     "groups_not_div_nodes_64e_80r_10g", "dsv3_58x256_288_32g_global");
INSTANTIATE_TEST_SUITE_P(CountWeights, EplbGolden, kCounts, Name);
INSTANTIATE_TEST_SUITE_P(CountWeights, EplbGoldenCounts, kCounts, Name);

}  // namespace
}  // namespace epsim
