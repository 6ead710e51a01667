// Does the model say what the GPU would?  Tables come from a stated clock, which is then asked for what they do not
// hold.
#include "models/costs/measured_cost_model.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "absl/strings/ascii.h"
#include "engine/random_stream.h"
#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/models/calibration/stated_calibration.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Precision Types(NumberType type) {
  CostConfig config;
  config.mutable_precision()->set_expert_weights(type);
  config.mutable_precision()->set_other_weights(type);
  config.mutable_precision()->set_dispatch(IsEightBit(type) ? type : BF16);
  return CompleteCostConfig(config, H200())->precision();
}

MeasuredConfig Fallback(const std::string& more = "") {
  MeasuredConfig config;
  EXPECT_TRUE(ParseTextProto("fallback: ROOFLINE " + more, "test", &config).ok());
  return *CompleteMeasuredConfig(config, H200());
}

std::unique_ptr<CostModel> Measured(const Calibration& calibration, const ModelSpec& model, NumberType type = BF16,
                                    const MeasuredConfig& config = Fallback(), bool permutation = true) {
  auto costs = NewMeasuredCostModel(calibration, config, Types(type), permutation, model, H200());
  EXPECT_TRUE(costs.ok()) << costs.status();
  return *std::move(costs);
}

// A rank's histogram: `slots` slots, tokens log-uniform up to `most`, some slots empty.
std::vector<int32_t> Draw(int slots, double most, RandomStream* random) {
  std::vector<int32_t> tokens(slots);
  for (int32_t& t : tokens) {
    if (random->Unit() < 0.2) continue;
    t = static_cast<int32_t>(std::exp(random->Unit() * std::log(most)));
  }
  return tokens;
}

double StatedExpertMicroseconds(const StatedClock& clock, const ModelSpec& model, NumberType type,
                                const std::vector<int32_t>& tokens) {
  KernelWork work;
  work.mutable_expert_mlp()->set_hidden(model.hidden());
  work.mutable_expert_mlp()->set_inter(model.moe_intermediate());
  work.mutable_expert_mlp()->set_weights(type);
  work.mutable_expert_mlp()->set_activations(type);
  for (int32_t t : tokens) work.mutable_expert_mlp()->add_tokens_per_slot(t);
  double us = clock.Microseconds(work);
  const int64_t pairs = std::accumulate(tokens.begin(), tokens.end(), int64_t{0});
  for (const bool weighted_return : {false, true}) {
    KernelWork permute;
    permute.mutable_permute()->set_tokens(pairs);
    permute.mutable_permute()->set_top_k(1);
    permute.mutable_permute()->set_hidden(model.hidden());
    permute.mutable_permute()->set_values(weighted_return ? BF16 : type);
    permute.mutable_permute()->set_weighted_return(weighted_return);
    us += clock.Microseconds(permute);
  }
  return us;
}

struct Errors {
  double median, p95;
  int measured = 0;
};

Errors ErrorsOfExperts(const ModelSpec& model, NumberType type, double noise) {
  const Calibration calibration = StatedCalibration({model}, {.noise = noise});
  const auto costs = Measured(calibration, model, type);
  const StatedClock clock;
  RandomStream random(1, "histograms");
  std::vector<double> errors;
  int measured = 0;
  for (int i = 0; i < 400; ++i) {
    const int slots = 1 << random.Below(7);
    const std::vector<int32_t> tokens = Draw(std::min<int>(slots, model.experts()), i % 2 == 0 ? 60 : 800, &random);
    const Cost cost = costs->RoutedExperts(tokens);
    measured += cost.source == CostSource::kMeasured;
    errors.push_back(std::abs(Microseconds(cost.time) / StatedExpertMicroseconds(clock, model, type, tokens) - 1));
  }
  std::sort(errors.begin(), errors.end());
  return {errors[200], errors[380], measured};
}

// What is asked lies between the measured histograms, and none of it on one.  The bounds are those of leave-one-out
// (expert_surface_test.cc) and the noise.
TEST(MeasuredCostModel, ExpertsThatWereNotMeasuredAreToldFromThoseThatWere) {
  for (const char* name : {"deepseek-v3", "qwen3-30b-a3b", "gpt-oss-120b"}) {
    for (const NumberType type : {BF16, FP8}) {
      for (const double noise : {0.0, 0.03}) {
        const Errors errors = ErrorsOfExperts(*FindModel(name), type, noise);
        EXPECT_LT(errors.median, 0.04 + noise) << name << " " << NumberType_Name(type);
        EXPECT_LT(errors.p95, 0.15 + noise) << name << " " << NumberType_Name(type);
        EXPECT_GT(errors.measured, 200);
        std::printf("%s %s, noise %.2f: median %.3f, 95th percentile %.3f; %d of 400 inside\n", name,
                    NumberType_Name(type).c_str(), noise, errors.median, errors.p95, errors.measured);
      }
    }
  }
}

// Tokens between those measured.  A full wave of tiles more or less is 1 / 2 at the worst where there are one or two
// waves, which no interpolation between powers of 4 can know: the median is bounded, not the worst.
TEST(MeasuredCostModel, GemmsBetweenTheMeasuredTokens) {
  const ModelSpec model = *FindModel("deepseek-v3");
  const Calibration calibration = StatedCalibration({model});
  const auto costs = Measured(calibration, model);
  const StatedClock clock;
  std::vector<double> errors;
  for (int64_t tokens = 1; tokens <= 8192; tokens = tokens * 5 / 4 + 1) {
    const Cost cost = costs->SharedExperts(tokens);
    EXPECT_EQ(cost.source, CostSource::kMeasured) << tokens;
    KernelWork up, down, swiglu;
    up.mutable_gemm()->set_m(tokens);
    up.mutable_gemm()->set_n(2 * model.shared_intermediate());
    up.mutable_gemm()->set_k(model.hidden());
    up.mutable_gemm()->set_values(BF16);
    down.mutable_gemm()->set_m(tokens);
    down.mutable_gemm()->set_n(model.hidden());
    down.mutable_gemm()->set_k(model.shared_intermediate());
    down.mutable_gemm()->set_values(BF16);
    swiglu.mutable_device_copy()->set_size_bytes(3 * tokens * model.shared_intermediate());
    const double us = clock.Microseconds(up) + clock.Microseconds(swiglu) + clock.Microseconds(down);
    errors.push_back(std::abs(Microseconds(cost.time) / us - 1));
  }
  std::sort(errors.begin(), errors.end());
  EXPECT_LT(errors[errors.size() / 2], 0.05);
  EXPECT_LT(errors.back(), 0.5);
}

TEST(MeasuredCostModel, ProvenanceTellsInsideFromOutside) {
  const ModelSpec model = *FindModel("deepseek-v3");
  const auto costs = Measured(StatedCalibration({model}), model);
  EXPECT_EQ(costs->RoutedExperts(std::vector<int32_t>(16, 30)).source, CostSource::kMeasured);
  EXPECT_EQ(costs->RoutedExperts(std::vector<int32_t>(16, 30'000)).source, CostSource::kExtended);
  EXPECT_EQ(costs->RoutedExperts({}).source, CostSource::kMeasured);
  EXPECT_EQ(costs->SharedExperts(100).source, CostSource::kMeasured);
  EXPECT_EQ(costs->SharedExperts(100'000).source, CostSource::kExtended);
  EXPECT_EQ(costs->Router(100).source, CostSource::kMeasured);
  EXPECT_EQ(costs->Attention({}).source, CostSource::kRoofline);
}

// The tables are of another model's experts: twice the inner size takes about twice as long.
TEST(MeasuredCostModel, ASizeThatWasNotMeasuredIsExtendedFromTheNearest) {
  ModelSpec model = *FindModel("deepseek-v3");
  const Calibration calibration = StatedCalibration({model});
  const std::vector<int32_t> tokens(32, 40);
  const Duration measured = Measured(calibration, model)->RoutedExperts(tokens).time;
  model.set_moe_intermediate(2 * model.moe_intermediate());
  const auto costs = Measured(calibration, model);
  EXPECT_EQ(costs->RoutedExperts(tokens).source, CostSource::kExtended);
  const double ratio = Microseconds(costs->RoutedExperts(tokens).time) / Microseconds(measured);
  EXPECT_GT(ratio, 1.8);
  EXPECT_LT(ratio, 2.0);
}

TEST(MeasuredCostModel, WithoutAFallbackItListsWhatIsMissing) {
  const ModelSpec model = *FindModel("deepseek-v3");
  Calibration calibration = StatedCalibration({model});
  const auto status = [&](NumberType type) {
    return NewMeasuredCostModel(calibration, *CompleteMeasuredConfig({}, H200()), Types(type), true, model, H200())
        .status()
        .message();
  };
  EXPECT_THAT(std::string(status(BF16)), HasSubstr("stated has no measurement for attention ("));
  EXPECT_THAT(std::string(status(BF16)), HasSubstr("fallback: ROOFLINE"));
  EXPECT_THAT(std::string(status(BF16)), Not(HasSubstr("router")));
  EXPECT_THAT(std::string(status(MXFP8)), HasSubstr("routed experts (no expert_mlp with weights in MXFP8"));
  std::erase_if(calibration.measurements, [](const Measurement& m) { return m.work().has_router(); });
  std::erase_if(calibration.measurements, [](const Measurement& m) { return m.work().has_launch(); });
  EXPECT_THAT(std::string(status(BF16)), HasSubstr("for router, kernels without tokens (no launch), attention"));
}

TEST(MeasuredCostModel, TheFallbackTakesWholeStagesAndSaysSo) {
  const ModelSpec model = *FindModel("deepseek-v3");
  Calibration calibration = StatedCalibration({model});
  std::erase_if(calibration.measurements, [](const Measurement& m) { return m.work().has_router(); });
  const auto costs = Measured(calibration, model);
  EXPECT_EQ(costs->Router(64).source, CostSource::kRoofline);
  EXPECT_EQ(costs->SharedExperts(64).source, CostSource::kMeasured);
  const std::vector<std::string> notes = costs->notes();
  EXPECT_THAT(notes, testing::Contains(HasSubstr("measured on Stated GPU")));
  EXPECT_THAT(notes, testing::Contains(HasSubstr("by roofline: router, attention")));
}

TEST(MeasuredCostModel, PermutationIsWhatItTakesLonger) {
  const ModelSpec model = *FindModel("deepseek-v3");
  const Calibration calibration = StatedCalibration({model});
  const std::vector<int32_t> tokens(32, 40);
  const Duration with = Measured(calibration, model)->RoutedExperts(tokens).time;
  const Duration without = Measured(calibration, model, BF16, Fallback(), false)->RoutedExperts(tokens).time;
  // 1,280 rows there and back, 14,336 B each, read and written, and two launches.
  EXPECT_GT(Microseconds(with - without), 2 * 2 + 4 * 1280 * 14336 / 4.8e6);
  EXPECT_LT(Microseconds(with - without), 3 * (2 * 2 + 4 * 1280 * 14336 / 4.8e6));
}

// A scale of 2 is twice the time beyond the floors, of each expert and of all.
TEST(MeasuredCostModel, ExpertsOfUnequalCost) {
  const ModelSpec model = *FindModel("deepseek-v3");
  const auto costs = Measured(StatedCalibration({model}), model, FP8);
  const std::vector<int32_t> tokens = {40, 0, 3, 200};
  const Duration floor = costs->RoutedExperts(std::vector<int32_t>(4)).time, once = costs->RoutedExperts(tokens).time;
  const std::vector<double> one(4, 1), two(4, 2), first = {2, 1, 1, 1}, empty = {1, 2, 1, 1};
  EXPECT_EQ(costs->RoutedExperts(tokens, one).time, once);
  EXPECT_EQ(costs->RoutedExperts(tokens, empty).time, once);
  EXPECT_NEAR(1.0 * (costs->RoutedExperts(tokens, two).time - floor).count(), 2.0 * (once - floor).count(), 3);
  EXPECT_GT(costs->RoutedExperts(tokens, first).time, once);
  EXPECT_LT(costs->RoutedExperts(tokens, first).time, costs->RoutedExperts(tokens, two).time);
}

// Adding tokens to a slot may be said to be faster, because utilisation is interpolated, but by little: on a clock
// without noise by at most 3 % for twice the tokens in one slot, while twice the tokens in all slots is never faster.
TEST(MeasuredCostModel, MoreTokensAreNotFaster) {
  const ModelSpec model = *FindModel("deepseek-v3");
  for (const NumberType type : {BF16, FP8}) {
    const auto costs = Measured(StatedCalibration({model}), model, type);
    RandomStream random(3, "histograms");
    double worst = 1;
    for (int i = 0; i < 400; ++i) {
      std::vector<int32_t> tokens = Draw(32, 400, &random);
      tokens[0] = std::max(tokens[0], 1);
      const Duration before = costs->RoutedExperts(tokens).time;
      std::vector<int32_t> doubled = tokens;
      for (int32_t& t : doubled) t *= 2;
      EXPECT_GE(costs->RoutedExperts(doubled).time, before);
      tokens[random.Below(32)] *= 2;
      worst = std::min(worst, Microseconds(costs->RoutedExperts(tokens).time) / Microseconds(before));
    }
    EXPECT_GT(worst, 0.97);
  }
}

TEST(MeasuredCostModel, TheBoundIsOne) {
  const ModelSpec model = *FindModel("deepseek-v3");
  const auto costs = Measured(StatedCalibration({model}, {.noise = 0.03}), model, FP8);
  RandomStream random(5, "histograms");
  for (int i = 0; i < 200; ++i) {
    double active = 0, pairs = 0;
    Duration busiest{};
    for (int rank = 0; rank < 4; ++rank) {
      const std::vector<int32_t> tokens = Draw(32, 300, &random);
      for (int32_t t : tokens) {
        active += t > 0;
        pairs += t;
      }
      busiest = std::max(busiest, costs->RoutedExperts(tokens).time);
    }
    EXPECT_LE(costs->LeastExperts(active, pairs, 4).time, busiest);
  }
}

TEST(MeasuredCostModel, ATableOfAnotherGpuIsNoted) {
  const ModelSpec model = *FindModel("deepseek-v3");
  GpuSpec gpu = H200();
  gpu.set_memory("80 GB");
  const auto costs = NewMeasuredCostModel(StatedCalibration({model}), Fallback(), Types(BF16), true, model, gpu);
  ASSERT_TRUE(costs.ok());
  EXPECT_THAT((*costs)->notes(), testing::Contains(HasSubstr("another GPU")));
}

TEST(MeasuredCostModel, ATableThatIsNotThereIsAnError) {
  CostConfig config;
  config.mutable_measured()->set_table("h900");
  const auto status = NewCostModel(config, *FindModel("deepseek-v3"), H200()).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("no calibration is called \"h900\""));
  config.mutable_measured()->clear_table();
  EXPECT_THAT(std::string(NewCostModel(config, *FindModel("deepseek-v3"), H200()).status().message()),
              HasSubstr("measured.table: no calibration is named"));
  config.mutable_measured()->set_table("/nonexistent/h200");
  EXPECT_THAT(std::string(NewCostModel(config, *FindModel("deepseek-v3"), H200()).status().message()),
              HasSubstr("/nonexistent/h200: cannot open"));
}

// Whatever is done to a table, it is refused or gives times.
TEST(MeasuredCostModel, DamagedTablesAreRefusedOrGiveTimes) {
  const ModelSpec model = *FindModel("olmoe-1b-7b");
  const Calibration calibration = StatedCalibration({model});
  CalibrationTable table;
  *table.mutable_hardware() = calibration.hardware;
  for (size_t i = 0; i < calibration.measurements.size(); i += 3)
    *table.add_measurement() = calibration.measurements[i];
  const std::string text = PrintCalibrationTable(table);
  ASSERT_TRUE(ParseCalibrationTable(text, "t").ok());
  RandomStream random(11, "damage");
  int refused = 0, taken = 0;
  for (int i = 0; i < 400; ++i) {
    std::string damaged = text;
    if (i % 4 == 0) {
      damaged.erase(random.Below(damaged.size()), 1 + random.Below(40));
    } else {
      // Digits of sizes, tokens and times.
      for (int k = 0; k < 3; ++k) {
        size_t place = random.Below(damaged.size());
        while (!absl::ascii_isdigit(damaged[place])) place = (place + 1) % damaged.size();
        damaged[place] = "0123456789.-e"[random.Below(i % 4 == 1 ? 13 : 10)];
      }
    }
    const auto read = ParseCalibrationTable(damaged, "t");
    if (!read.ok()) {
      ++refused;
      continue;
    }
    ++taken;
    Calibration of_damaged;
    of_damaged.hardware = read->hardware();
    of_damaged.measurements.assign(read->measurement().begin(), read->measurement().end());
    const auto costs = Measured(of_damaged, model);
    for (const std::vector<int32_t>& tokens : {std::vector<int32_t>{}, {1}, {4, 0, 1000}, {1 << 20, 1 << 20}}) {
      EXPECT_GE(costs->RoutedExperts(tokens).time, Duration{});
      EXPECT_LE(costs->RoutedExperts(tokens).time, kLongestStep);
    }
    for (int64_t tokens : {0, 1, 1 << 20}) {
      EXPECT_LE(costs->Router(tokens).time, kLongestStep);
      EXPECT_LE(costs->LmHead(tokens).time, kLongestStep);
    }
  }
  EXPECT_GT(refused, 50);
  EXPECT_GT(taken, 50);
}

}  // namespace
}  // namespace epsim
