// Permute and back: the kernels against their twins, bit for bit, and against the definition.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/kernels/exact_float.h"
#include "models/kernels/permute.h"
#include "tests/models/kernels/drawn_numbers.h"
#include "tests/models/kernels/kernel_runs.h"

namespace epsim {
namespace {

using kernel_runs::PlannedRows;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class PermuteKernel : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = kernel_runs::NoDevice(); !reason.empty()) GTEST_SKIP() << reason;
  }
};

PlannedRows TwinPlan(const PermuteOptions& o, const std::vector<int32_t>& slots) {
  PlannedRows plan{std::vector<int32_t>(slots.size(), -7), std::vector<int32_t>(static_cast<size_t>(o.slots) + 1, -7),
                   std::vector<int32_t>(static_cast<size_t>(o.slots), -7),
                   std::vector<int32_t>(static_cast<size_t>(o.ranks), -7)};
  EXPECT_TRUE(PlanRows(o, slots,
                       {.rows = absl::MakeSpan(plan.rows),
                        .offsets = absl::MakeSpan(plan.offsets),
                        .counts = absl::MakeSpan(plan.counts),
                        .tokens_per_rank = absl::MakeSpan(plan.tokens_per_rank)})
                  .ok());
  return plan;
}

void ExpectEqual(const PlannedRows& got, const PlannedRows& expected) {
  EXPECT_EQ(got.offsets, expected.offsets);
  EXPECT_EQ(got.counts, expected.counts);
  EXPECT_EQ(got.tokens_per_rank, expected.tokens_per_rank);
  EXPECT_EQ(got.rows, expected.rows);
}

// Slot by slot, by looking at all pairs.
PlannedRows DefinedPlan(const PermuteOptions& o, const std::vector<int32_t>& slots) {
  PlannedRows plan{std::vector<int32_t>(slots.size(), -1), {0}, {}, {}};
  for (int slot = 0; slot < o.slots; ++slot) {
    int32_t row = plan.offsets.back();
    for (size_t i = 0; i < slots.size(); ++i) {
      if (slots[i] == slot) plan.rows[i] = row++;
    }
    plan.counts.push_back(row - plan.offsets.back());
    while (row % o.alignment != 0) ++row;
    plan.offsets.push_back(row);
  }
  for (int rank = 0; rank < o.ranks; ++rank) {
    std::set<size_t> tokens;
    for (size_t i = 0; i < slots.size(); ++i) {
      if (slots[i] >= 0 && slots[i] / (o.slots / o.ranks) == rank) tokens.insert(i / static_cast<size_t>(o.top_k));
    }
    plan.tokens_per_rank.push_back(static_cast<int32_t>(tokens.size()));
  }
  return plan;
}

// The kernels', having seen that they and the twin's are as defined.
PlannedRows Plan(const PermuteOptions& options, const std::vector<int32_t>& slots) {
  const auto run = kernel_runs::PlanRows(options, slots);
  EXPECT_TRUE(run.ok()) << run.status();
  if (!run.ok()) return {};
  const PlannedRows defined = DefinedPlan(options, slots);
  ExpectEqual(TwinPlan(options, slots), defined);
  ExpectEqual(*run, defined);
  return *run;
}

// Slots 0 1 | 2 1 | 1 - | 0 3; two on each of two ranks, slots begin at even rows.  Slot 0 has rows 0 and 1, slot 1 has
// 2, 3, 4 and one to align, slot 2 has 6, slot 3 has 8.  Tokens 0, 1, 2 and 3 visit rank 0; 1 and 3 visit rank 1.
TEST_F(PermuteKernel, PlanByHand) {
  const PlannedRows plan =
      Plan({.tokens = 4, .top_k = 2, .slots = 4, .ranks = 2, .alignment = 2}, {0, 1, 2, 1, 1, -1, 0, 3});
  EXPECT_THAT(plan.rows, ElementsAre(0, 2, 6, 3, 4, -1, 1, 8));
  EXPECT_THAT(plan.offsets, ElementsAre(0, 2, 6, 8, 10));
  EXPECT_THAT(plan.counts, ElementsAre(2, 3, 1, 1));
  EXPECT_THAT(plan.tokens_per_rank, ElementsAre(4, 2));
}

TEST_F(PermuteKernel, Plans) {
  for (const auto& [tokens, top_k, slots, ranks] : std::vector<std::tuple<int, int, int, int>>{{1, 1, 1, 1},
                                                                                               {1, 8, 256, 32},
                                                                                               {7, 2, 8, 8},
                                                                                               {255, 8, 256, 8},
                                                                                               {256, 8, 64, 4},
                                                                                               {257, 8, 320, 64},
                                                                                               {1000, 6, 160, 10},
                                                                                               {100, 16, 512, 1},
                                                                                               {600, 10, 1024, 1024},
                                                                                               {5000, 1, 3, 3}}) {
    for (const int alignment : {1, 16, 128}) {
      SCOPED_TRACE(absl::StrCat(tokens, " tokens, top-", top_k, ", ", slots, " slots, by ", alignment));
      std::vector<int32_t> ids = DrawIds(static_cast<size_t>(tokens), top_k, slots, absl::StrCat("plan", tokens));
      for (size_t i = 0; i < ids.size(); i += 13) ids[i] = alignment == 16 ? -1 : ids[i];
      const PermuteOptions options = {
          .tokens = tokens, .top_k = top_k, .slots = slots, .ranks = ranks, .alignment = alignment};
      EXPECT_LE(Plan(options, ids).offsets.back(), MostRows(options));
    }
  }
}

TEST_F(PermuteKernel, NoTokensAndNoSlots) {
  EXPECT_THAT(Plan({.tokens = 0, .top_k = 2, .slots = 3, .alignment = 8}, {}).offsets, ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(Plan({.tokens = 2, .top_k = 1, .slots = 2}, {-1, -1}).counts, ElementsAre(0, 0));
}

TEST_F(PermuteKernel, RowsGoToTheirPlaces) {
  for (const auto& [tokens, top_k, bytes] :
       std::vector<std::tuple<int, int, RowBytes>>{{3, 2, {.values = 16}},                   // The shortest.
                                                   {5, 8, {.values = 14336}},                // 7,168 of bf16.
                                                   {5, 4, {.values = 7168, .scales = 224}},  // Of fp8.
                                                   {2, 1, {.values = 16400, .scales = 4}},
                                                   {4, 16, {.values = 512, .scales = 1500}}}) {
    SCOPED_TRACE(absl::StrCat(bytes.values, " bytes"));
    const PermuteOptions options = {.tokens = tokens, .top_k = top_k, .slots = 20, .alignment = 4};
    std::vector<int32_t> slots = DrawIds(static_cast<size_t>(tokens), top_k, 20, "rows");
    if (top_k > 1) slots[1] = -1;
    const PlannedRows plan = TwinPlan(options, slots);
    const size_t permuted_rows = static_cast<size_t>(plan.offsets.back());
    std::vector<uint8_t> values(static_cast<size_t>(tokens) * bytes.values);
    std::vector<uint8_t> scales(static_cast<size_t>(tokens) * bytes.scales);
    RandomStream random(1, "rows/values");
    for (uint8_t& value : values) value = static_cast<uint8_t>(random.Below(256));
    for (uint8_t& scale : scales) scale = static_cast<uint8_t>(random.Below(256));

    kernel_runs::PermutedRows expected{std::vector<uint8_t>(permuted_rows * bytes.values, kernel_runs::kUnwritten),
                                       std::vector<uint8_t>(permuted_rows * bytes.scales, kernel_runs::kUnwritten)};
    kernel_runs::PermutedRows twin = expected;
    for (size_t i = 0; i < slots.size(); ++i) {
      if (plan.rows[i] < 0) continue;
      const size_t token = i / static_cast<size_t>(top_k), row = static_cast<size_t>(plan.rows[i]);
      std::copy_n(&values[token * bytes.values], bytes.values, &expected.values[row * bytes.values]);
      for (size_t b = 0; b < bytes.scales; ++b) {
        expected.scales[row * bytes.scales + b] = scales[token * bytes.scales + b];
      }
    }
    EXPECT_TRUE(
        PermuteRows(options, bytes, plan.rows, values, scales, absl::MakeSpan(twin.values), absl::MakeSpan(twin.scales))
            .ok());
    EXPECT_EQ(twin.values, expected.values);
    EXPECT_EQ(twin.scales, expected.scales);
    const auto run = kernel_runs::PermuteRows(options, bytes, permuted_rows, plan.rows, values, scales);
    ASSERT_TRUE(run.ok()) << run.status();
    EXPECT_EQ(run->values, expected.values);
    EXPECT_EQ(run->scales, expected.scales);
  }
}

TEST_F(PermuteKernel, WeightedReturn) {
  for (const auto& [tokens, top_k, hidden] :
       std::vector<std::tuple<int, int, int>>{{3, 2, 8}, {4, 8, 7168}, {5, 16, 2880}, {9, 6, 2056}, {2, 20, 1000}}) {
    SCOPED_TRACE(absl::StrCat("top-", top_k, ", ", hidden, " values"));
    const PermuteOptions options = {.tokens = tokens, .top_k = top_k, .slots = 32, .alignment = 8};
    std::vector<int32_t> slots = DrawIds(static_cast<size_t>(tokens), top_k, 32, "return");
    slots[1] = -1;
    std::fill_n(slots.end() - top_k, top_k, -1);  // The last token has no row.
    const PlannedRows plan = TwinPlan(options, slots);
    const std::vector<float> weights = DrawNormal(slots.size(), 1, "return/weights");
    const size_t width = static_cast<size_t>(hidden);
    std::vector<uint16_t> permuted;
    for (const float value : DrawNormal(static_cast<size_t>(plan.offsets.back()) * width, 1, "return/values")) {
      permuted.push_back(Bf16Of(value));
    }
    std::vector<uint16_t> twin(static_cast<size_t>(tokens) * width, 0xdead);
    EXPECT_TRUE(UnpermuteRows(options, hidden, plan.rows, weights, permuted, absl::MakeSpan(twin)).ok());
    std::vector<uint16_t> portable(twin.size(), 0xdead);
    EXPECT_TRUE(
        UnpermuteRows(options, hidden, plan.rows, weights, permuted, absl::MakeSpan(portable), VectorSet::kPortable)
            .ok());
    EXPECT_EQ(twin, portable);
    const auto run = kernel_runs::UnpermuteRows(options, hidden, plan.rows, weights, permuted);
    ASSERT_TRUE(run.ok()) << run.status();
    EXPECT_EQ(*run, twin);
    for (size_t i = 0; i < twin.size(); ++i) {
      double sum = 0, size = 0;
      for (size_t k = 0; k < static_cast<size_t>(top_k); ++k) {
        const size_t pair = i / width * static_cast<size_t>(top_k) + k;
        if (plan.rows[pair] < 0) continue;
        const double term =
            double{weights[pair]} * FloatOfBf16(permuted[static_cast<size_t>(plan.rows[pair]) * width + i % width]);
        sum += term;
        size += std::abs(term);
      }
      // Half a unit of bf16's eight bits, and float32's rounding of the sum.
      ASSERT_NEAR(FloatOfBf16(twin[i]), sum, std::abs(sum) * 0x1p-8 + size * 1e-5) << i;
    }
    EXPECT_EQ(twin.back(), 0);
  }
}

TEST_F(PermuteKernel, SaysWhatItCannot) {
  const auto message = [](const PermuteOptions& options) {
    return std::string(kernel_runs::PlanRows(options, {}).status().message());
  };
  EXPECT_THAT(message({.tokens = 0, .top_k = 2, .slots = 1025}), HasSubstr("1025 slots; 1 to 1024 would fit"));
  EXPECT_THAT(message({.tokens = 0, .top_k = 2, .slots = 10, .ranks = 4}), HasSubstr("4 ranks for 10 slots"));
  EXPECT_THAT(message({.tokens = 0, .top_k = 33, .slots = 10}), HasSubstr("top_k of 33; 1 to 32"));
  EXPECT_THAT(message({.tokens = 1 << 28, .top_k = 8, .slots = 10}), HasSubstr("more than 2^31 - 1"));
  const PermuteOptions options = {.tokens = 0, .top_k = 1, .slots = 1};
  EXPECT_THAT(std::string(kernel_runs::PermuteRows(options, {.values = 24}, 0, {}, {}, {}).status().message()),
              HasSubstr("rows of 24 bytes; a multiple of 16"));
  EXPECT_THAT(std::string(kernel_runs::UnpermuteRows(options, 12, {}, {}, {}).status().message()),
              HasSubstr("rows of 12 values; a multiple of 8"));
}

}  // namespace
}  // namespace epsim
