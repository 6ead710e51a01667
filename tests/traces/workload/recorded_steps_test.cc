// Captured steps are replayed as they were: on their ranks or folded onto others, in place where they can be.
//
// Ids name their token: token t of a step, layer l, place k of the top-k has id 16 t + 4 l + k.
#include "traces/workload/recorded_steps.h"

#include <cstring>
#include <string>
#include <tuple>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/traces/workload/memory_trace.h"
#include "traces/workload/step_source.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kLayers = 2, kTopK = 2;

WorkloadConfig Recorded(uint32_t max_steps = 0) {
  WorkloadConfig config;
  config.mutable_recorded();
  config.set_max_steps(max_steps);
  return config;
}

// Tokens [first, first + tokens) of a step, layer by layer.
MemoryTrace::Columns Tokens(int64_t step, int first, int tokens, std::vector<uint16_t> source_rank = {}) {
  MemoryTrace::Columns chunk;
  chunk.tokens = tokens;
  chunk.step = step;
  for (int l = 0; l < kLayers; ++l) {
    for (int t = first; t < first + tokens; ++t) {
      for (int k = 0; k < kTopK; ++k) chunk.ids.push_back(static_cast<uint16_t>(16 * t + 4 * l + k));
    }
  }
  chunk.source_rank = std::move(source_rank);
  return chunk;
}

MemoryTrace Trace(int source_ranks) { return MemoryTrace(HeaderOf(STEP, kLayers, kTopK, 256, 1, source_ranks)); }

// Which token of the capture each token of the batch is, after checking all its ids.
std::vector<int> TokensOf(const StepBatch& batch) {
  std::vector<int> tokens;
  for (int t = 0; t < batch.tokens; ++t) {
    for (int l = 0; l < batch.layers; ++l) {
      for (int k = 0; k < batch.top_k; ++k) {
        const int id = std::to_integer<int>(batch.layer_ids(l)[t * batch.top_k + k]);
        if (l == 0 && k == 0) tokens.push_back(id / 16);
        EXPECT_EQ(id, 16 * tokens.back() + 4 * l + k) << "token " << t << " layer " << l;
      }
    }
  }
  return tokens;
}

std::unique_ptr<StepSource> Source(const TraceReader& trace, int ranks, uint32_t max_steps = 0) {
  absl::StatusOr<std::unique_ptr<StepSource>> source = NewStepSource(Recorded(max_steps), trace, ranks, 1);
  EXPECT_TRUE(source.ok()) << source.status();
  return source.ok() ? *std::move(source) : nullptr;
}

const StepBatch& Next(StepSource& source) {
  const absl::StatusOr<const StepBatch*> batch = source.Next(SimTime());
  EXPECT_TRUE(batch.ok()) << batch.status();
  EXPECT_NE(*batch, nullptr);
  return **batch;
}

using Load = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t>;
Load AsTuple(const AttentionLoad& l) {
  return {l.tokens, l.sequences, l.decode_tokens, l.attended_tokens, l.context_tokens, l.output_tokens};
}

TEST(RecordedSteps, AreUsedWhereTheyLieIfOneChunkHoldsThemInOrder) {
  MemoryTrace trace = Trace(4);
  MemoryTrace::Columns chunk = Tokens(0, 0, 5, {0, 0, 1, 3, 3});
  chunk.valid_count = {2, 2, 1, 2, 2, 2, 0, 2, 2, 2};
  trace.AddChunk(std::move(chunk));
  trace.AddChunk(Tokens(1, 0, 2, {2, 2}));
  const auto source = Source(trace, 4);
  EXPECT_EQ(source->total_steps(), 2);
  EXPECT_EQ(source->description(),
            "recorded, 2 steps as captured, on the 4 ranks of the capture; contexts not "
            "recorded: counted from each sequence's first token");
  EXPECT_FALSE(source->resampled());

  const StepBatch& first = Next(*source);
  EXPECT_EQ(first.ids, trace.ReadChunk(0)->ids);
  EXPECT_EQ(first.valid_count, trace.ReadChunk(0)->valid_count);
  EXPECT_EQ(first.layer_stride, 10u);
  EXPECT_THAT(first.rank_begin, ElementsAre(0, 2, 3, 3, 5));
  EXPECT_THAT(TokensOf(first), ElementsAre(0, 1, 2, 3, 4));
  EXPECT_EQ(first.index, 0);

  const StepBatch& second = Next(*source);
  EXPECT_EQ(second.ids, trace.ReadChunk(1)->ids);
  EXPECT_EQ(second.valid_count, nullptr);
  EXPECT_THAT(second.rank_begin, ElementsAre(0, 0, 0, 2, 2));
  EXPECT_EQ(second.index, 1);
  EXPECT_EQ(*source->Next(SimTime()), nullptr);
}

TEST(RecordedSteps, FromSeveralChunksArePutTogether) {
  MemoryTrace trace = Trace(2);
  MemoryTrace::Columns second = Tokens(0, 3, 2, {1, 1});
  second.valid_count = {0, 1, 2, 1};
  trace.AddChunk(Tokens(0, 0, 3, {0, 0, 1}));
  trace.AddChunk(std::move(second));
  const auto source = Source(trace, 2);
  const StepBatch& batch = Next(*source);
  EXPECT_THAT(TokensOf(batch), ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(batch.rank_begin, ElementsAre(0, 2, 5));
  // [layers, tokens]; the first chunk has all ids.
  EXPECT_THAT(std::vector<int>(batch.valid_count, batch.valid_count + 10), ElementsAre(2, 2, 2, 0, 1, 2, 2, 2, 2, 1));
  EXPECT_EQ(source->total_steps(), 1);
}

TEST(RecordedSteps, AreSortedByRankWithoutReorderingARanksTokens) {
  MemoryTrace trace = Trace(3);
  MemoryTrace::Columns chunk = Tokens(0, 0, 6, {2, 0, 1, 0, 2, 1});
  chunk.position = {10, 11, 12, 13, 14, 15};
  chunk.request_index = {0, 1, 2, 1, 0, 3};
  trace.AddChunk(std::move(chunk));
  const auto source = Source(trace, 3);
  const StepBatch& batch = Next(*source);
  EXPECT_THAT(TokensOf(batch), ElementsAre(1, 3, 2, 5, 0, 4));
  EXPECT_THAT(batch.rank_begin, ElementsAre(0, 2, 4, 6));
  // Rank 0: request 1 at 11 and 13: one sequence, attended 12 + 14, context 14.  Rank 1: requests 2 and 3, one token
  // each at 12 and 15.  Rank 2: request 0 at 10 and 14.
  EXPECT_EQ(AsTuple(batch.attention[0]), Load(2, 1, 0, 26, 14, 1));
  EXPECT_EQ(AsTuple(batch.attention[1]), Load(2, 2, 2, 29, 29, 2));
  EXPECT_EQ(AsTuple(batch.attention[2]), Load(2, 1, 0, 26, 15, 1));
}

TEST(RecordedSteps, MergeNeighbourRanksOntoFewer) {
  // Source ranks 0 1 | 2 3 go to ranks 0 | 1; still in order, so still in place.
  MemoryTrace trace = Trace(4);
  trace.AddChunk(Tokens(0, 0, 5, {0, 1, 1, 2, 3}));
  const auto source = Source(trace, 2);
  const StepBatch& batch = Next(*source);
  EXPECT_THAT(batch.rank_begin, ElementsAre(0, 3, 5));
  EXPECT_EQ(batch.ids, trace.ReadChunk(0)->ids);
  EXPECT_THAT(source->description(), HasSubstr("captured on 4 ranks, merged onto 2: source rank s to rank s * 2 / 4"));
}

TEST(RecordedSteps, DealEachRankOverSeveral) {
  // Source rank 0's 5 tokens go to ranks 0-1 as 2 + 3, source rank 1's 2 tokens to ranks 2-3 as 1 + 1.
  MemoryTrace trace = Trace(2);
  trace.AddChunk(Tokens(0, 0, 7, {0, 0, 0, 0, 0, 1, 1}));
  const auto source = Source(trace, 4);
  EXPECT_THAT(Next(*source).rank_begin, ElementsAre(0, 2, 5, 6, 7));
  EXPECT_THAT(source->description(), HasSubstr("captured on 2 ranks, each dealt evenly over 2 of 4"));
}

TEST(RecordedSteps, WithoutSourceRanksAreDealtEvenly) {
  // The header's number of ranks means nothing where tokens do not say which was theirs.
  for (const int source_ranks : {0, 4}) {
    MemoryTrace trace = Trace(source_ranks);
    trace.AddChunk(Tokens(0, 0, 7));
    const auto source = Source(trace, 4);
    const StepBatch& batch = Next(*source);
    EXPECT_THAT(batch.rank_begin, ElementsAre(0, 1, 3, 5, 7));
    EXPECT_EQ(batch.ids, trace.ReadChunk(0)->ids);
    EXPECT_THAT(source->description(),
                HasSubstr("source ranks not recorded: each step's tokens dealt evenly over 4 ranks"));
  }
}

TEST(RecordedSteps, EndAfterMaxSteps) {
  MemoryTrace trace = Trace(1);
  for (int step = 0; step < 5; ++step) trace.AddChunk(Tokens(step, 0, 1, {0}));
  const auto source = Source(trace, 1, 3);
  EXPECT_EQ(source->total_steps(), 3);
  for (int i = 0; i < 3; ++i) Next(*source);
  EXPECT_EQ(*source->Next(SimTime()), nullptr);
}

std::string ErrorOf(const absl::Status& status) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

TEST(RecordedSteps, RefuseWhatDoesNotFit) {
  MemoryTrace trace = Trace(4);
  trace.AddChunk(Tokens(0, 0, 2, {0, 1}));
  EXPECT_EQ(ErrorOf(NewStepSource(Recorded(), trace, 6, 1).status()),
            "memory.eptrace: captured on 4 ranks, which do not fold onto 6: use a number of ranks that divides 4 or is "
            "a multiple of it");
  WorkloadConfig continuous;
  continuous.mutable_continuous();
  EXPECT_EQ(ErrorOf(NewStepSource(continuous, trace, 4, 1).status()),
            "memory.eptrace: holds recorded steps, not requests: use batching recorded");
  const MemoryTrace empty = Trace(0);
  EXPECT_EQ(ErrorOf(NewStepSource(Recorded(), empty, 2, 1).status()), "memory.eptrace: holds no step");
  MemoryTrace unnumbered = Trace(0);
  unnumbered.AddChunk(Tokens(0, 0, 2, {0, 1}));
  EXPECT_EQ(ErrorOf(NewStepSource(Recorded(), unnumbered, 2, 1).status()),
            "memory.eptrace: tokens have source ranks, but the header's source_ranks is 0");
}

TEST(RecordedSteps, ReportFaultsOfAStepWhenItIsAskedFor) {
  MemoryTrace trace = Trace(2);
  trace.AddChunk(Tokens(0, 0, 2, {0, 1}));
  trace.AddChunk(Tokens(1, 0, 2, {0, 2}));
  auto source = Source(trace, 2);
  Next(*source);
  EXPECT_EQ(ErrorOf(source->Next(SimTime()).status()),
            "memory.eptrace: chunk 1: token 1: source rank 2 of a trace captured on 2 ranks");

  MemoryTrace mixed = Trace(2);
  mixed.AddChunk(Tokens(0, 0, 2, {0, 1}));
  mixed.AddChunk(Tokens(0, 2, 1));
  source = Source(mixed, 2);
  EXPECT_EQ(ErrorOf(source->Next(SimTime()).status()),
            "memory.eptrace: chunk 1: step 0 has no source ranks, steps before it have");
}

// Attention of captured steps, by what is known of the tokens.
AttentionLoad LoadOf(MemoryTrace::Columns columns) {
  MemoryTrace trace = Trace(0);
  trace.AddChunk(std::move(columns));
  return Next(*Source(trace, 1)).attention[0];
}

TEST(RecordedAttention, DecodeTokensAreSequencesOfTheirOwn) {
  MemoryTrace::Columns columns = Tokens(0, 0, 3);
  columns.position = {4, 5, 9};  // 4 and 5 follow each other by chance.
  columns.phase = {DECODE, DECODE, DECODE};
  EXPECT_EQ(AsTuple(LoadOf(columns)), Load(3, 3, 3, 5 + 6 + 10, 21, 3));
}

TEST(RecordedAttention, PrefillTokensWithConsecutivePositionsAreOneSequence) {
  MemoryTrace::Columns columns = Tokens(0, 0, 5);
  columns.position = {0, 1, 2, 7, 8};
  columns.phase = {PREFILL, PREFILL, PREFILL, PREFILL, PREFILL};
  EXPECT_EQ(AsTuple(LoadOf(columns)), Load(5, 2, 0, 1 + 2 + 3 + 8 + 9, 3 + 9, 2));
}

TEST(RecordedAttention, PartsOfARequestAreOneSequenceWhereverTheyLie) {
  // Request 5 has tokens 0 and 2, without positions: contexts 1 and 2.  Request 3 has token 1.
  MemoryTrace::Columns columns = Tokens(0, 0, 3);
  columns.request_index = {5, 3, 5};
  EXPECT_EQ(AsTuple(LoadOf(columns)), Load(3, 2, 1, 1 + 1 + 2, 1 + 2, 2));
}

TEST(RecordedAttention, WithoutAnythingKnownARanksTokensAreOneSequence) {
  EXPECT_EQ(AsTuple(LoadOf(Tokens(0, 0, 4))), Load(4, 1, 0, 1 + 2 + 3 + 4, 4, 1));
}

TEST(RecordedAttention, SpeculativeTokensOfOneRequestAllGiveOutputs) {
  MemoryTrace::Columns columns = Tokens(0, 0, 3);
  columns.position = {7, 8, 9};
  columns.request_index = {0, 0, 0};
  columns.phase = {DECODE, DECODE, DECODE};
  EXPECT_EQ(AsTuple(LoadOf(columns)), Load(3, 1, 0, 8 + 9 + 10, 10, 3));
}

TEST(RecordedCounts, GiveTokensPerExpertAndDealTheTokensEvenly) {
  // Two chunks of 2 + 1 steps, 2 layers, 3 experts, top-2.  Step 0 has 6 and 5 pairs in its layers: 3 tokens.
  MemoryTrace trace(HeaderOf(COUNTS, 2, 2, 3, 1));
  trace.AddChunk({.tokens = 2, .counts = {3, 2, 1, 0, 3, 2, /**/ 2, 2, 2, 8, 0, 8}});
  trace.AddChunk({.tokens = 1, .step = 2, .counts = {0, 0, 0, 0, 0, 0}});
  const auto source = Source(trace, 2);
  EXPECT_EQ(source->total_steps(), 3);
  const StepBatch& first = Next(*source);
  EXPECT_EQ(first.ids, nullptr);
  EXPECT_THAT(std::vector<uint32_t>(first.counts, first.counts + 6), ElementsAre(3, 2, 1, 0, 3, 2));
  EXPECT_EQ(first.tokens, 3);
  EXPECT_THAT(first.rank_begin, ElementsAre(0, 1, 3));
  EXPECT_EQ(AsTuple(first.attention[1]), Load(2, 2, 2, 2, 2, 2));
  const StepBatch& second = Next(*source);
  EXPECT_EQ(second.tokens, 8);
  EXPECT_THAT(std::vector<uint32_t>(second.counts, second.counts + 6), ElementsAre(2, 2, 2, 8, 0, 8));
  EXPECT_EQ(Next(*source).tokens, 0);
  EXPECT_EQ(*source->Next(SimTime()), nullptr);
  EXPECT_THAT(source->description(), HasSubstr("3 steps of tokens per expert, dealt evenly over 2 ranks"));
}

}  // namespace
}  // namespace epsim
