// The figures that ../shared/data/traces/README.md gives for captured traces.
//
// Balancedness: mean / max of tokens per GPU under contiguous placement, averaged over layers, on the whole trace.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/traces/workload/memory_trace.h"
#include "traces/statistics/trace_statistics.h"

namespace epsim {
namespace {

// The arrays of a NumPy folder as one chunk of a trace of requests: ids are stored in the very order of the array.
class Captured {
 public:
  explicit Captured(const std::string& name) : folder_(absl::StrCat(EPSIM_SHARED_DATA, "/traces/", name)) {
    if (!std::filesystem::exists(folder_)) return;
    const nlohmann::json meta = nlohmann::json::parse(std::ifstream(folder_ + "/meta.json"));
    trace_ = std::make_unique<MemoryTrace>(HeaderOf(REQUEST, meta["layers"], meta["top_k"], meta["experts"], 1));
    std::ifstream file(folder_ + "/routed_experts.npy", std::ios::binary);
    std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    // Version 1: magic (6 bytes), version (2), length of the header (2, little-endian), header.
    const size_t header = 10 + static_cast<uint8_t>(bytes[8]) + 256 * static_cast<uint8_t>(bytes[9]);
    MemoryTrace::Columns chunk;
    chunk.tokens = meta["tokens"];
    for (size_t i = header; i < bytes.size(); ++i) chunk.ids.push_back(static_cast<uint8_t>(bytes[i]));
    trace_->AddChunk(std::move(chunk));
    std::ifstream requests(folder_ + "/requests.jsonl");
    for (std::string line; std::getline(requests, line);) {
      const nlohmann::json request = nlohmann::json::parse(line);
      trace_->AddRequest(request["first_token"], request["tokens"]);
    }
  }
  const std::string& folder() const { return folder_; }
  const MemoryTrace* trace() const { return trace_.get(); }

 private:
  std::string folder_;
  std::unique_ptr<MemoryTrace> trace_;
};

double BalancednessAt(const TraceStatistics& statistics, int ranks) {
  for (const auto& entry : statistics.balancedness) {
    if (entry.ranks == ranks) return entry.tokens;
  }
  ADD_FAILURE() << "no balancedness at " << ranks << " ranks";
  return 0;
}

#define MEASURE_OR_SKIP(statistics, name)                                              \
  const Captured captured(name);                                                       \
  if (captured.trace() == nullptr) GTEST_SKIP() << "not found: " << captured.folder(); \
  const auto measured = MeasureTrace(*captured.trace(), StopToken(), nullptr);         \
  ASSERT_TRUE(measured.ok()) << measured.status();                                     \
  const TraceStatistics& statistics = *measured

// The README's overlaps, 0.379 and 0.435, do not say of which tokens and layers they are.  Over every pair of tokens
// that follow each other in a request, and every layer, the arrays have the values below: counted once, outside this
// program, as sizes of set intersections.
TEST(PublishedFigures, GptOss20bDecode) {
  MEASURE_OR_SKIP(statistics, "gpt-oss-20b-decode");
  EXPECT_NEAR(BalancednessAt(statistics, 8), 0.709, 0.0005);
  EXPECT_NEAR(BalancednessAt(statistics, 32), 0.411, 0.0005);
  EXPECT_EQ(statistics.tokens, 85302);
  EXPECT_EQ(statistics.requests, 185);
  EXPECT_DOUBLE_EQ(statistics.overlap->random, 0.125);
  EXPECT_EQ(statistics.overlap->pairs, 85302 - 185);
  EXPECT_NEAR(statistics.overlap->mean, 0.4352962931, 1e-10);
  EXPECT_NEAR(statistics.skew->mean, 2.4893398357, 1e-10);
  EXPECT_NEAR(statistics.skew->worst, 3.5479590162, 1e-10);
}

TEST(PublishedFigures, Qwen3PrefillSteps) {
  MEASURE_OR_SKIP(statistics, "qwen3-30b-a3b-prefill-steps");
  EXPECT_NEAR(BalancednessAt(statistics, 4), 0.875, 0.0005);
  EXPECT_NEAR(BalancednessAt(statistics, 32), 0.490, 0.0005);
  EXPECT_DOUBLE_EQ(statistics.overlap->random, 0.0625);
  EXPECT_NEAR(statistics.overlap->mean, 0.4560590192, 1e-10);
}

TEST(PublishedFigures, DeepSeekV2LiteSummary) {
  MEASURE_OR_SKIP(statistics, "deepseek-v2-lite-summary");
  EXPECT_NEAR(BalancednessAt(statistics, 8), 0.723, 0.0005);
  EXPECT_NEAR(statistics.overlap->mean, 0.2907254963, 1e-10);
}

}  // namespace
}  // namespace epsim
