// Does the roofline respond as physics must?  Every model of the catalogue on an H200-class GPU, with the defaults, in
// bf16 and in fp8.
#include <algorithm>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "engine/random_stream.h"
#include "gtest/gtest.h"
#include "models/catalogue.h"
#include "tests/models/costs/round_numbers.h"

namespace epsim {
namespace {

GpuSpec Hopper(const std::string& bandwidth = "4.8 TB/s", const std::string& bf16 = "989 TFLOP/s",
               const std::string& fp8 = "1978 TFLOP/s") {
  return Parse<GpuSpec>("name: \"H200\" memory: \"141 GB\" memory_bandwidth: \"" + bandwidth + "\" bf16: \"" + bf16 +
                        "\" fp8: \"" + fp8 + "\" sms: 132 compute_capability: 90");
}

using Stage = std::function<Duration(const CostModel&, int64_t tokens)>;

// Stages as functions of their tokens.
std::vector<std::pair<const char*, Stage>> Stages() {
  return {
      {"router", [](const CostModel& costs, int64_t tokens) { return costs.Router(tokens).time; }},
      {"shared experts", [](const CostModel& costs, int64_t tokens) { return costs.SharedExperts(tokens).time; }},
      {"dense MLP", [](const CostModel& costs, int64_t tokens) { return costs.DenseMlp(tokens).time; }},
      {"head", [](const CostModel& costs, int64_t tokens) { return costs.LmHead(tokens).time; }},
      {"routed experts",
       [](const CostModel& costs, int64_t tokens) {
         const auto share = static_cast<int32_t>(tokens / 2);
         return costs.RoutedExperts({share, static_cast<int32_t>(tokens) - share, 0}).time;
       }},
      {"decode",
       [](const CostModel& costs, int64_t tokens) { return costs.Attention(Decode(tokens, tokens * 500)).time; }},
      {"prefill",
       [](const CostModel& costs, int64_t tokens) {
         const bool any = tokens >= 2;  // A single token is no prefill.
         return costs.Attention(any ? Prefill(1, tokens, tokens + 100) : AttentionLoad()).time;
       }},
  };
}

class RooflineMetamorphicTest : public testing::TestWithParam<std::tuple<std::string, std::string>> {
 protected:
  std::unique_ptr<CostModel> On(const GpuSpec& gpu, const std::string& roofline = "") {
    const std::string& type = std::get<1>(GetParam());
    return RoundCosts(Parse<CostConfig>("precision { expert_weights: " + type + " other_weights: " + type +
                                        " } roofline { " + roofline + " }"),
                      *FindModel(std::get<0>(GetParam())), gpu);
  }
};

TEST_P(RooflineMetamorphicTest, MoreTokensAreNeverCheaper) {
  const auto costs = On(Hopper());
  for (const auto& [name, stage] : Stages()) {
    Duration last{};
    for (const int64_t tokens : {0, 1, 2, 3, 15, 16, 17, 63, 64, 65, 127, 128, 129, 500, 1000, 4096, 4097, 16384}) {
      const Duration time = stage(*costs, tokens);
      EXPECT_GE(time, last) << name << ", " << tokens << " tokens";
      last = time;
    }
  }
}

// In layers of chunks a token sees less as a new chunk begins, so there only contexts within the first count.
TEST_P(RooflineMetamorphicTest, ALongerContextIsNeverCheaper) {
  const auto costs = On(Hopper());
  const ModelSpec model = *FindModel(std::get<0>(GetParam()));
  Duration last{};
  for (const int64_t context : {1, 2, 127, 128, 129, 1000, 8192, 8193, 100'000}) {
    if (model.local_chunks() && context > model.local_window()) break;
    const Duration time = costs->Attention(Decode(32, 32 * context)).time;
    EXPECT_GE(time, last) << context;
    last = time;
  }
}

// Twice a peak is never slower, and twice all rates, those of an SM among them, halve all but the floors.
TEST_P(RooflineMetamorphicTest, AFasterGpuIsNeverSlower) {
  const auto base = On(Hopper(), R"(gemm { tile_start: "400 ns" sm_bandwidth: "100 GB/s" })"),
             memory = On(Hopper("9.6 TB/s"), R"(gemm { tile_start: "400 ns" sm_bandwidth: "100 GB/s" })"),
             compute = On(Hopper("4.8 TB/s", "1978 TFLOP/s", "3956 TFLOP/s"),
                          R"(gemm { tile_start: "400 ns" sm_bandwidth: "100 GB/s" })"),
             both = On(Hopper("9.6 TB/s", "1978 TFLOP/s", "3956 TFLOP/s"),
                       R"(gemm { tile_start: "200 ns" sm_bandwidth: "200 GB/s" })"),
             infinite = On(Hopper("900000 TB/s", "900000 PFLOP/s", "900000 PFLOP/s"),
                           R"(gemm { tile_start: "0 ns" sm_bandwidth: "900000 TB/s" })");
  for (const auto& [name, stage] : Stages()) {
    for (const int64_t tokens : {1, 64, 500, 16384}) {
      SCOPED_TRACE(name + (" " + std::to_string(tokens)));
      EXPECT_LE(stage(*memory, tokens), stage(*base, tokens));
      EXPECT_LE(stage(*compute, tokens), stage(*base, tokens));
      // Each of the three was rounded up: 2 * both = base + floors within 2 ps.  The floors of a stage are what its
      // kernels take on a GPU so fast that nothing else matters.
      const double work = 1.0 * (stage(*base, tokens) - stage(*infinite, tokens)).count();
      const double halved = 1.0 * (stage(*both, tokens) - stage(*infinite, tokens)).count();
      EXPECT_NEAR(halved, work / 2, 2 + 1e-4 * work);
    }
  }
}

// In decode every active slot is read: the same tokens over more slots cost more, a slot's weights at a time.
TEST_P(RooflineMetamorphicTest, SpreadingTokensOverMoreSlotsIsNeverCheaper) {
  const auto costs = On(Hopper());
  Duration last{};
  for (int active = 1; active <= 8; ++active) {
    std::vector<int32_t> tokens(8, 0);
    for (int i = 0; i < 16; ++i) ++tokens[i % active];
    const Duration time = costs->RoutedExperts(tokens).time;
    EXPECT_GT(time, last) << active;
    last = time;
  }
}

TEST_P(RooflineMetamorphicTest, TheOrderOfSlotsAndEmptyOnesDoNotMatter) {
  const auto costs = On(Hopper());
  RandomStream random(7, "histograms");
  for (int round = 0; round < 50; ++round) {
    std::vector<int32_t> tokens(1 + random.Below(12));
    for (int32_t& t : tokens) t = random.Below(3) == 0 ? 0 : static_cast<int32_t>(random.Below(300));
    const Duration time = costs->RoutedExperts(tokens).time;
    std::vector<int32_t> sorted = tokens;
    std::sort(sorted.begin(), sorted.end());
    EXPECT_EQ(costs->RoutedExperts(sorted).time, time);
    sorted.insert(sorted.end(), 5, 0);
    EXPECT_EQ(costs->RoutedExperts(sorted).time, time);
  }
}

// Twice every scale doubles all but the floors; a larger one is never cheaper.  Each time was rounded up.
TEST_P(RooflineMetamorphicTest, TimeBeyondTheFloorsGoesWithTheScale) {
  const auto costs = On(Hopper());
  RandomStream random(8, "histograms");
  for (int round = 0; round < 50; ++round) {
    std::vector<int32_t> tokens(1 + random.Below(12));
    std::vector<double> scale(tokens.size());
    for (int32_t& t : tokens) t = random.Below(3) == 0 ? 0 : static_cast<int32_t>(random.Below(600));
    for (double& s : scale) s = 0.1 + 3 * random.Unit();
    const Duration floor = costs->RoutedExperts(std::vector<int32_t>(tokens.size())).time;
    const Duration once = costs->RoutedExperts(tokens, scale).time;
    std::vector<double> more = scale;
    for (double& s : more) s *= 2;
    EXPECT_NEAR(1.0 * (costs->RoutedExperts(tokens, more).time - floor).count(), 2.0 * (once - floor).count(), 2);
    more = scale;
    const size_t slot = random.Below(more.size());
    more[slot] *= 1.5;
    EXPECT_EQ(costs->RoutedExperts(tokens, more).time > once, tokens[slot] > 0);
  }
}

// Phases add up to no less than each alone.
TEST_P(RooflineMetamorphicTest, AMixedStepCostsAtLeastEachOfItsPhases) {
  const auto costs = On(Hopper());
  const AttentionLoad decode = Decode(20, 20 * 3000), prefill = Prefill(2, 400, 1000);
  const AttentionLoad both = {.tokens = decode.tokens + prefill.tokens,
                              .sequences = decode.sequences + prefill.sequences,
                              .decode_tokens = decode.decode_tokens,
                              .attended_tokens = decode.attended_tokens + prefill.attended_tokens,
                              .context_tokens = decode.context_tokens + prefill.context_tokens,
                              .output_tokens = decode.output_tokens + prefill.output_tokens};
  EXPECT_GT(costs->Attention(both).time, costs->Attention(decode).time);
  EXPECT_GT(costs->Attention(both).time, costs->Attention(prefill).time);
  EXPECT_LT(costs->Attention(both).time, costs->Attention(decode).time + costs->Attention(prefill).time);
}

std::vector<std::string> ModelNames() {
  std::vector<std::string> names;
  for (const CatalogueFile& file : ModelCatalogue()) names.emplace_back(file.name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(EveryModel, RooflineMetamorphicTest,
                         testing::Combine(testing::ValuesIn(ModelNames()), testing::Values("BF16", "FP8")),
                         [](const auto& info) {
                           std::string name = std::get<0>(info.param) + "_" + std::get<1>(info.param);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace epsim
