// Co-occurrence: the kernel and the twin against the product of matrices that it is.
#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/kernels/co_occurrence.h"
#include "tests/models/kernels/drawn_numbers.h"
#include "tests/models/kernels/kernel_runs.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CoOccurrenceKernel : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = kernel_runs::NoDevice(); !reason.empty()) GTEST_SKIP() << reason;
  }
};

// P'P, with P written out.
std::vector<int32_t> Product(const CoOccurrenceOptions& o, const std::vector<int32_t>& ids) {
  const size_t tokens = static_cast<size_t>(o.tokens), experts = static_cast<size_t>(o.experts);
  std::vector<int> p(tokens * experts);
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0) p[i / static_cast<size_t>(o.top_k) * experts + static_cast<size_t>(ids[i])] = 1;
  }
  std::vector<int32_t> product(experts * experts);
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t a = 0; a < experts; ++a) {
      if (p[t * experts + a] == 0) continue;
      for (size_t b = 0; b < experts; ++b) product[a * experts + b] += p[t * experts + b];
    }
  }
  return product;
}

std::vector<int32_t> RunCounts(const CoOccurrenceOptions& options, const std::vector<int32_t>& ids) {
  const auto run = kernel_runs::CountCoOccurrence(options, ids);
  EXPECT_TRUE(run.ok()) << run.status();
  if (!run.ok()) return {};
  const std::vector<int32_t> product = Product(options, ids);
  std::vector<int32_t> twin(product.size(), -7);
  EXPECT_TRUE(CountCoOccurrence(options, ids, absl::MakeSpan(twin)).ok());
  EXPECT_EQ(twin, product);
  EXPECT_EQ(*run, product);
  return *run;
}

// Tokens choose {0, 2}, {2, 1}, {2} of three experts.
TEST_F(CoOccurrenceKernel, ByHand) {
  EXPECT_THAT(RunCounts({.tokens = 3, .experts = 3, .top_k = 2}, {0, 2, 2, 1, 2, -1}),
              ElementsAre(1, 0, 1, 0, 1, 1, 1, 1, 3));
}

TEST_F(CoOccurrenceKernel, DrawnIds) {
  for (const auto& [tokens, experts, top_k] : std::vector<std::tuple<int, int, int>>{
           {1, 8, 8}, {31, 8, 2}, {500, 256, 8}, {333, 160, 6}, {100, 512, 16}, {2000, 60, 4}, {100, 1, 1}}) {
    SCOPED_TRACE(absl::StrCat(tokens, " tokens, ", experts, " experts, top-", top_k));
    std::vector<int32_t> ids = DrawIds(static_cast<size_t>(tokens), top_k, experts, absl::StrCat("ids", tokens));
    RunCounts({.tokens = tokens, .experts = experts, .top_k = top_k}, ids);
    for (size_t i = 0; i < ids.size(); i += 7) ids[i] = -1;
    RunCounts({.tokens = tokens, .experts = experts, .top_k = top_k}, ids);
  }
}

TEST_F(CoOccurrenceKernel, NoTokens) {
  EXPECT_THAT(RunCounts({.tokens = 0, .experts = 2, .top_k = 1}, {}), ElementsAre(0, 0, 0, 0));
}

TEST_F(CoOccurrenceKernel, SaysWhatItCannot) {
  const auto message = [](const CoOccurrenceOptions& options) {
    return std::string(kernel_runs::CountCoOccurrence(options, {}).status().message());
  };
  EXPECT_THAT(message({.tokens = 0, .experts = 5000, .top_k = 1}), HasSubstr("5000 experts; 1 to 4096 would fit"));
  EXPECT_THAT(message({.tokens = 0, .experts = 5, .top_k = 6}), HasSubstr("top_k of 6 experts; 1 to 5"));
}

}  // namespace
}  // namespace epsim
