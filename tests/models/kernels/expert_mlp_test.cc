#include "models/kernels/expert_mlp.h"

#include <algorithm>
#include <ostream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/models/kernels/expert_mlp_case.h"

namespace epsim {
namespace {

using expert_mlp_case::Case;
using expert_mlp_case::DrawCase;
using expert_mlp_case::kPoison;
using expert_mlp_case::Reference;
using expert_mlp_case::RelativeError;
using expert_mlp_case::Rounding;
using ::testing::HasSubstr;

std::vector<uint16_t> Compute(const Case& mlp) {
  std::vector<uint16_t> y(static_cast<size_t>(mlp.layout.rows() * mlp.shape.hidden), kPoison);
  ExpertMlpOnCpu(mlp.shape, mlp.inputs(), y.data());
  return y;
}

struct Named {
  const char* name;
  ExpertMlpShape shape;
};
void PrintTo(const Named& named, std::ostream* out) { *out << named.name; }

class ExpertMlpTwin : public testing::TestWithParam<Named> {};

// The sums are the only difference: float32 here, float64 there.  A value of h or a that falls on the other side of a
// rounding boundary moves y by far less than y's own rounding, half of 2^-8.
TEST_P(ExpertMlpTwin, IsTheReferenceInFloat64) {
  const Case mlp = DrawCase(GetParam().shape, GetParam().name);
  const std::vector<uint16_t> y = Compute(mlp);
  EXPECT_LT(RelativeError(y, Reference(mlp, Rounding::kAsSpecified)), 2e-3);
}

// Three roundings to bf16 (2^-9 each at most, relative); e4m3 has four significant bits: 2^-4 at most, of which the
// mean over the values of a uniform mantissa is some 2.6 %.
TEST_P(ExpertMlpTwin, RoundingCostsWhatTheFormatsLose) {
  const Case mlp = DrawCase(GetParam().shape, GetParam().name);
  const double error = RelativeError(Compute(mlp), Reference(mlp, Rounding::kNone));
  EXPECT_GT(error, 5e-4);
  EXPECT_LT(error, GetParam().shape.values == BF16 ? 6e-3 : 4e-2);
}

TEST_P(ExpertMlpTwin, WritesRowsOfTokensAndNoOthers) {
  const Case mlp = DrawCase(GetParam().shape, GetParam().name);
  const std::vector<uint16_t> y = Compute(mlp);
  for (int64_t slot = 0; slot < mlp.layout.slots(); ++slot) {
    for (int64_t row = 0; row < mlp.layout.padded_rows(slot); ++row) {
      const bool written = row < mlp.shape.tokens_per_slot[static_cast<size_t>(slot)];
      const auto begin = y.begin() + (mlp.layout.row_begin(slot) + row) * mlp.shape.hidden;
      EXPECT_EQ(std::count(begin, begin + mlp.shape.hidden, kPoison), written ? 0 : mlp.shape.hidden)
          << "slot " << slot << " row " << row;
    }
  }
}

// The tokens of a slot do not depend on what other slots have.
TEST_P(ExpertMlpTwin, SlotsAreIndependent) {
  const Case both = DrawCase(GetParam().shape, GetParam().name);
  const std::vector<uint16_t> y = Compute(both);
  for (size_t slot = 0; slot < both.shape.tokens_per_slot.size(); ++slot) {
    if (both.shape.tokens_per_slot[slot] == 0) continue;
    Case alone = both;
    for (size_t other = 0; other < alone.shape.tokens_per_slot.size(); ++other) {
      if (other != slot) alone.shape.tokens_per_slot[other] = 0;
    }
    alone.layout = ExpertMlpLayout(alone.shape);
    const int64_t begin = both.layout.row_begin(static_cast<int64_t>(slot)), hidden = both.shape.hidden;
    ExpertMlpInputs inputs = both.inputs();
    const int64_t width = both.shape.values == FP8 ? 1 : 2;
    inputs.x = static_cast<const uint8_t*>(inputs.x) + begin * hidden * width;
    if (inputs.x_scales != nullptr) inputs.x_scales += begin * (hidden / kScaleBlock);
    std::vector<uint16_t> mine(static_cast<size_t>(alone.layout.rows() * hidden), kPoison);
    ExpertMlpOnCpu(alone.shape, inputs, mine.data());
    EXPECT_TRUE(std::equal(mine.begin(), mine.end(), y.begin() + begin * hidden)) << slot;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, ExpertMlpTwin,
    testing::Values(Named{"Bf16", {.hidden = 256, .inter = 144, .values = BF16, .tokens_per_slot = {5, 0, 1, 70}}},
                    Named{"Bf16LongRows", {.hidden = 1040, .inter = 64, .values = BF16, .tokens_per_slot = {9, 3}}},
                    Named{"Fp8", {.hidden = 256, .inter = 128, .values = FP8, .tokens_per_slot = {0, 5, 33, 0, 66}}},
                    Named{"Fp8LongRows", {.hidden = 640, .inter = 384, .values = FP8, .tokens_per_slot = {1, 16}}}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(ExpertMlp, LayoutPadsWhatTensorCoresNeedPadded) {
  const ExpertMlpLayout bf16({.hidden = 128, .inter = 128, .values = BF16, .tokens_per_slot = {3, 0, 17}});
  EXPECT_EQ(bf16.rows(), 20);
  EXPECT_EQ(bf16.row_begin(2), 3);
  const ExpertMlpLayout fp8({.hidden = 128, .inter = 128, .values = FP8, .tokens_per_slot = {3, 0, 17}});
  EXPECT_EQ(fp8.rows(), 16 + 32);
  EXPECT_EQ(fp8.padded_rows(1), 0);
  EXPECT_EQ(fp8.row_begin(2), 16);
  // Two blocks a row: the first slot has 2 x 16 scales, then come those of the third, block after block.
  EXPECT_EQ(fp8.RowScale(2, 5, 0, 256), 32 + 5);
  EXPECT_EQ(fp8.RowScale(2, 5, 1, 256), 32 + 32 + 5);
  EXPECT_EQ(fp8.row_scales(256), 2 * 48);
}

TEST(ExpertMlp, SaysWhatDoesNotGo) {
  const auto problem = [](ExpertMlpShape shape) { return std::string(CheckExpertMlp(shape).message()); };
  EXPECT_EQ(problem({.hidden = 256, .inter = 128, .values = FP8, .tokens_per_slot = {1}}), "");
  EXPECT_THAT(problem({.hidden = 256, .inter = 128, .values = NVFP4, .tokens_per_slot = {1}}), HasSubstr("NVFP4"));
  EXPECT_THAT(problem({.hidden = 192, .inter = 128, .values = FP8, .tokens_per_slot = {1}}),
              HasSubstr("hidden: 192 is no positive multiple of 128"));
  EXPECT_THAT(problem({.hidden = 192, .inter = 100, .values = BF16, .tokens_per_slot = {1}}),
              HasSubstr("inter: 100 is no positive multiple of 16"));
  EXPECT_THAT(problem({.hidden = 192, .inter = 96, .values = BF16, .tokens_per_slot = {0, 0}}), HasSubstr("no tokens"));
  EXPECT_THAT(problem({.hidden = 192, .inter = 96, .values = BF16, .tokens_per_slot = {4, -1}}),
              HasSubstr("tokens_per_slot[1]: -1"));
}

}  // namespace
}  // namespace epsim
