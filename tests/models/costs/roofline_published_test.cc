// Does the roofline with its defaults give published kernel times?  The defaults were read off some of these rows
// (costs.proto says which), so this is no measure of how well they extrapolate; it shows that one set of constants
// serves four GPUs and three libraries, and would show a formula that broke.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/catalogue.h"
#include "models/costs/cost_model.h"
#include "nlohmann/json.hpp"
#include "tests/models/costs/round_numbers.h"

namespace epsim {
namespace {

constexpr char kPath[] = EPSIM_SHARED_DATA "/validation/public.jsonl";

// Peaks from reference/platforms.json.
GpuSpec Gpu(const std::string& name) {
  const std::string memory_bandwidth = name == "h200-sxm" ? "4.8 TB/s" : name == "b200-sxm" ? "7.7 TB/s" : "3.35 TB/s";
  const bool blackwell = name == "b200-sxm";
  return Parse<GpuSpec>("name: \"" + name + "\" memory: \"80 GB\" memory_bandwidth: \"" + memory_bandwidth +
                        "\" bf16: \"" + (blackwell ? "2250" : "989") + " TFLOP/s\" fp8: \"" +
                        (blackwell ? "4500" : "1978") + " TFLOP/s\"");
}

std::vector<int32_t> Spread(int slots, int64_t pairs) {
  std::vector<int32_t> tokens(slots, static_cast<int32_t>(pairs / slots));
  for (int64_t i = 0; i < pairs % slots; ++i) ++tokens[i];
  return tokens;
}

struct Row {
  std::string kind;
  double predicted_us, measured_us;
};

// The prediction for a row of moe_layer, fused_moe, mla_decode or mla_prefill; other kinds give no row.
std::optional<Row> Predict(const nlohmann::json& row) {
  const std::string kind = row["kind"];
  const double measured = row.value("time_us", 0.0);
  CostConfig config;
  if (kind == "moe_layer") {
    config.mutable_precision()->set_expert_weights(FP8);
    const auto costs = RoundCosts(config, *FindModel("deepseek-v3"), Gpu(row["platform"]));
    std::vector<int32_t> tokens = Spread(256 / row["ep"].get<int>(), row["hottest_rank_pairs"].get<int64_t>());
    for (int32_t& t : tokens) t = std::max(t, 1);  // "All experts of the rank active."
    const std::string mode = row["mode"];
    return Row{kind + " " + mode, Microseconds(costs->RoutedExperts(tokens).time), measured};
  }
  if (kind == "fused_moe") {
    const bool mixtral = row["model"] == "mixtral8x7b";
    const auto costs = RoundCosts(config, *FindModel(mixtral ? "mixtral-8x7b" : "qwen3-30b-a3b"), Gpu(row["platform"]));
    const int64_t pairs = row["tokens"].get<int64_t>() * row["top_k"].get<int64_t>();
    return Row{kind, Microseconds(costs->RoutedExperts(Spread(row["active_experts"], pairs)).time), measured};
  }
  if ((kind == "mla_decode" || kind == "mla_prefill") && row["scope"] == "attention_block") {
    // The slope over the context is that of a bf16 cache, whatever the table's label (README, caveat 6).
    config.mutable_precision()->set_other_weights(FP8);
    ModelSpec model = *FindModel("deepseek-v3");
    model.set_heads(row["heads"]);
    const auto costs = RoundCosts(config, model, Gpu(row["platform"]));
    const int64_t batch = row["batch"];
    const AttentionLoad load = kind == "mla_decode" ? Decode(batch, batch * row["kv_len"].get<int64_t>())
                                                    : Prefill(batch, row["isl"], row["isl"]);
    return Row{kind, Microseconds(costs->Attention(load).time), measured};
  }
  return std::nullopt;
}

TEST(RooflinePublishedTest, MedianErrorsOfTheTightRows) {
  std::ifstream stream(kPath);
  if (!stream) GTEST_SKIP() << kPath << " is not there";
  std::map<std::string, std::vector<double>> errors;
  for (std::string line; std::getline(stream, line);) {
    const nlohmann::json row = nlohmann::json::parse(line);
    if (row["weight"] != "tight") continue;
    if (const std::optional<Row> prediction = Predict(row)) {
      errors[prediction->kind].push_back(std::abs(prediction->predicted_us / prediction->measured_us - 1));
    }
  }
  const auto median = [&](const std::string& kind) {
    std::vector<double>& of_kind = errors[kind];
    std::sort(of_kind.begin(), of_kind.end());
    return of_kind.empty() ? 1 : of_kind[of_kind.size() / 2];
  };
  // Decode layers of DeepSeek-V3 on H200, H100 and B200, 2 to 32 experts a GPU.
  ASSERT_EQ(errors["moe_layer generation"].size(), 28u);
  EXPECT_LT(median("moe_layer generation"), 0.03);
  EXPECT_LT(errors["moe_layer generation"].back(), 0.11);
  ASSERT_EQ(errors["fused_moe"].size(), 26u);
  EXPECT_LT(median("fused_moe"), 0.07);
  EXPECT_LT(errors["fused_moe"].back(), 0.25);
  ASSERT_EQ(errors["mla_decode"].size(), 30u);
  EXPECT_LT(median("mla_decode"), 0.05);
  EXPECT_LT(errors["mla_decode"].back(), 0.17);
  ASSERT_EQ(errors["mla_prefill"].size(), 11u);
  EXPECT_LT(median("mla_prefill"), 0.05);
  EXPECT_LT(errors["mla_prefill"].back(), 0.13);
  // Prefill layers include host launches (a floor of 0.37 ms) and a cost of all the group's tokens: README, caveat 4.
  ASSERT_EQ(errors["moe_layer context"].size(), 8u);
  EXPECT_LT(median("moe_layer context"), 0.27);
}

}  // namespace
}  // namespace epsim
