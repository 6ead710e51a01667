// Batches whose tokens carry the router's scores, from traces of steps and of requests.  The score of token t in layer
// l for expert e is 100 t + 10 l + e.
#include <cstring>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/traces/workload/memory_trace.h"
#include "traces/format/float_numbers.h"
#include "traces/workload/step_source.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kLayers = 2, kTopK = 1, kExperts = 3;

TraceHeader Header(Granularity granularity, int source_ranks = 0) {
  TraceHeader header = HeaderOf(granularity, kLayers, kTopK, kExperts, 1, source_ranks);
  header.set_scores(FLOAT32);
  return header;
}

// Tokens [first, first + tokens), as the granularity orders them.
MemoryTrace::Columns Tokens(Granularity granularity, int first, int tokens) {
  MemoryTrace::Columns chunk;
  chunk.tokens = tokens;
  chunk.ids.assign(static_cast<size_t>(tokens * kLayers * kTopK), 0);
  const auto add = [&](int token, int layer) {
    for (int e = 0; e < kExperts; ++e) {
      const float score = static_cast<float>(100 * token + 10 * layer + e);
      const auto* const bytes = reinterpret_cast<const std::byte*>(&score);
      chunk.scores.insert(chunk.scores.end(), bytes, bytes + sizeof(score));
    }
  };
  if (granularity == STEP) {
    for (int l = 0; l < kLayers; ++l) {
      for (int t = first; t < first + tokens; ++t) add(t, l);
    }
  } else {
    for (int t = first; t < first + tokens; ++t) {
      for (int l = 0; l < kLayers; ++l) add(t, l);
    }
  }
  return chunk;
}

// Which token of the trace each token of the batch is, after checking all its scores.
std::vector<int> TokensOf(const StepBatch& batch) {
  std::vector<int> tokens;
  EXPECT_EQ(batch.scores.size(), static_cast<size_t>(batch.tokens));
  EXPECT_EQ(batch.score_format, FLOAT32);
  for (const TokenScores& scores : batch.scores) {
    for (int l = 0; l < kLayers; ++l) {
      std::vector<float> row(kExperts);
      ToFloats(batch.score_format, scores.first + static_cast<size_t>(l) * scores.layer_stride, absl::MakeSpan(row));
      if (l == 0) tokens.push_back(static_cast<int>(row[0]) / 100);
      const float first = static_cast<float>(100 * tokens.back() + 10 * l);
      EXPECT_THAT(row, ElementsAre(first, first + 1, first + 2)) << "layer " << l;
    }
  }
  return tokens;
}

absl::StatusOr<std::unique_ptr<StepSource>> Source(const TraceReader& trace, int ranks, bool scores = true) {
  WorkloadConfig config;
  if (trace.header().granularity() == REQUEST) {
    config.mutable_continuous()->set_running_requests_per_rank(1);
  } else {
    config.mutable_recorded();
  }
  return NewStepSource(config, trace, ranks, 1, {}, {.scores = scores});
}

TEST(StepScores, OfARecordedStepInOneChunk) {
  MemoryTrace trace(Header(STEP));
  trace.AddChunk(Tokens(STEP, 0, 3));
  trace.AddChunk([] {
    MemoryTrace::Columns next = Tokens(STEP, 3, 2);
    next.step = 1;
    return next;
  }());
  const auto source = Source(trace, 1).value();
  const StepBatch* batch = source->Next(SimTime()).value();
  EXPECT_THAT(TokensOf(*batch), ElementsAre(0, 1, 2));
  EXPECT_EQ(batch->scores[1].first, trace.ReadChunk(0)->scores + kExperts * sizeof(float)) << "where they lie";
  EXPECT_THAT(TokensOf(*source->Next(SimTime()).value()), ElementsAre(3, 4));
}

// Chunks [0, 1], [1] of ranks 0 and 1: the batch has rank 0's tokens first.
TEST(StepScores, OfARecordedStepPutTogether) {
  MemoryTrace trace(Header(STEP, 2));
  MemoryTrace::Columns first = Tokens(STEP, 0, 2), second = Tokens(STEP, 2, 1);
  first.source_rank = {1, 1};
  second.source_rank = {0};
  trace.AddChunk(std::move(first));
  trace.AddChunk(std::move(second));
  EXPECT_THAT(TokensOf(*Source(trace, 2).value()->Next(SimTime()).value()), ElementsAre(2, 0, 1));
}

// Two requests on two ranks, rows 0 to 2 and 3 to 5, in chunks of two rows.
TEST(StepScores, OfComposedRequests) {
  MemoryTrace trace(Header(REQUEST));
  trace.AddRequest(0, 3);
  trace.AddRequest(3, 3);
  for (int row = 0; row < 6; row += 2) trace.AddChunk(Tokens(REQUEST, row, 2));
  const auto source = Source(trace, 2).value();
  EXPECT_THAT(TokensOf(*source->Next(SimTime()).value()), ElementsAre(0, 3));
  EXPECT_THAT(TokensOf(*source->Next(SimTime()).value()), ElementsAre(1, 4));
  EXPECT_THAT(TokensOf(*source->Next(SimTime()).value()), ElementsAre(2, 5));
}

TEST(StepScores, AreThereOnlyIfAskedFor) {
  MemoryTrace trace(Header(STEP));
  trace.AddChunk(Tokens(STEP, 0, 3));
  const auto source = Source(trace, 1, false).value();
  const StepBatch* batch = source->Next(SimTime()).value();
  EXPECT_TRUE(batch->scores.empty());
  EXPECT_EQ(batch->score_format, NUMBER_FORMAT_NONE);
}

TEST(StepScores, ATraceWithoutThemIsRefused) {
  for (const Granularity granularity : {STEP, REQUEST}) {
    MemoryTrace none(HeaderOf(granularity, kLayers, kTopK, kExperts, 1));
    EXPECT_EQ(Source(none, 1).status(), absl::InvalidArgumentError("memory.eptrace: has no scores of the router"));
    // The header promises them, a chunk has none.
    MemoryTrace trace(Header(granularity));
    if (granularity == REQUEST) trace.AddRequest(0, 2);
    MemoryTrace::Columns chunk = Tokens(granularity, 0, 2);
    chunk.scores.clear();
    trace.AddChunk(std::move(chunk));
    const absl::Status status = Source(trace, 1).value()->Next(SimTime()).status();
    EXPECT_THAT(std::string(status.message()), HasSubstr("has no scores of the router"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("memory.eptrace: "));
  }
  MemoryTrace counts(Header(COUNTS));
  EXPECT_THAT(std::string(Source(counts, 1).status().message()), HasSubstr("has no scores"));
}

}  // namespace
}  // namespace epsim
