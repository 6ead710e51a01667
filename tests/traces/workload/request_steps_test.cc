// Requests become steps: who runs when, what attention has to do, and that nothing is lost.
//
// Ids of the hand-worked traces name their row: row r, layer l, place k of the top-k has id 16 r + 4 l + k.
#include "traces/workload/request_steps.h"

#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "engine/random_stream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/traces/workload/memory_trace.h"
#include "traces/workload/step_source.h"

namespace epsim {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kLayers = 3, kTopK = 2;

struct Request {
  int64_t prefill = 0, decode = 0, prompt = 0;
};

// Ids that name their row, `chunk_tokens` rows a chunk, phases and no positions.
MemoryTrace NamedRows(const std::vector<Request>& requests, int64_t chunk_tokens) {
  MemoryTrace trace(HeaderOf(REQUEST, kLayers, kTopK, 65536, 2));
  std::vector<uint8_t> phase;
  for (const Request& request : requests) {
    trace.AddRequest(static_cast<int64_t>(phase.size()), request.prefill + request.decode, request.prompt);
    phase.insert(phase.end(), static_cast<size_t>(request.prefill), PREFILL);
    phase.insert(phase.end(), static_cast<size_t>(request.decode), DECODE);
  }
  const int64_t rows = static_cast<int64_t>(phase.size());
  for (int64_t first = 0; first < rows; first += chunk_tokens) {
    MemoryTrace::Columns chunk;
    chunk.tokens = std::min(chunk_tokens, rows - first);
    for (int64_t row = first; row < first + chunk.tokens; ++row) {
      chunk.phase.push_back(phase[static_cast<size_t>(row)]);
      for (int l = 0; l < kLayers; ++l) {
        for (int k = 0; k < kTopK; ++k) chunk.ids.push_back(static_cast<uint16_t>(16 * row + 4 * l + k));
      }
    }
    trace.AddChunk(std::move(chunk));
  }
  return trace;
}

// The rows of each rank's tokens, after checking that every layer and id is that row's.
std::vector<std::vector<int>> RowsOfRanks(const StepBatch& batch) {
  std::vector<std::vector<int>> rows(batch.rank_begin.size() - 1);
  EXPECT_EQ(batch.rank_begin.front(), 0);
  EXPECT_EQ(batch.rank_begin.back(), batch.tokens);
  for (size_t rank = 0; rank + 1 < batch.rank_begin.size(); ++rank) {
    for (int t = batch.rank_begin[rank]; t < batch.rank_begin[rank + 1]; ++t) {
      for (int l = 0; l < batch.layers; ++l) {
        for (int k = 0; k < batch.top_k; ++k) {
          uint16_t id;
          std::memcpy(&id, batch.layer_ids(l) + (t * batch.top_k + k) * 2, 2);
          if (l == 0 && k == 0) rows[rank].push_back(id / 16);
          EXPECT_EQ(id, 16 * rows[rank].back() + 4 * l + k) << "token " << t << " layer " << l;
        }
      }
    }
  }
  return rows;
}

using Steps = std::vector<std::vector<std::vector<int>>>;  // [steps][ranks] rows

Steps Drain(StepSource& source, std::vector<std::vector<AttentionLoad>>* attention = nullptr) {
  Steps steps;
  while (true) {
    const absl::StatusOr<const StepBatch*> batch = source.Next(SimTime());
    if (!batch.ok()) {
      ADD_FAILURE() << batch.status();
      return steps;
    }
    if (*batch == nullptr) break;
    EXPECT_EQ((*batch)->index, static_cast<int64_t>(steps.size()));
    steps.push_back(RowsOfRanks(**batch));
    if (attention != nullptr) attention->push_back((*batch)->attention);
  }
  EXPECT_EQ(source.total_steps(), static_cast<int64_t>(steps.size()));
  return steps;
}

WorkloadConfig Continuous(uint32_t requests, uint32_t max_tokens = 0, uint32_t max_steps = 0) {
  WorkloadConfig config;
  config.mutable_continuous()->set_running_requests_per_rank(requests);
  config.mutable_continuous()->set_max_tokens_per_rank(max_tokens);
  config.set_max_steps(max_steps);
  return config;
}

WorkloadConfig LockStep(uint32_t requests, uint32_t max_tokens = 0) {
  WorkloadConfig config;
  config.mutable_lock_step()->set_requests_per_rank(requests);
  config.mutable_lock_step()->set_max_tokens_per_rank(max_tokens);
  return config;
}

std::unique_ptr<StepSource> Source(const WorkloadConfig& config, const TraceReader& trace, int ranks,
                                   uint64_t seed = 1) {
  absl::StatusOr<std::unique_ptr<StepSource>> source = NewStepSource(config, trace, ranks, seed);
  EXPECT_TRUE(source.ok()) << source.status();
  return source.ok() ? *std::move(source) : nullptr;
}

// Loads are compared as (tokens, sequences, decode, attended, context, outputs).
using Load = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t>;
Load AsTuple(const AttentionLoad& l) {
  return {l.tokens, l.sequences, l.decode_tokens, l.attended_tokens, l.context_tokens, l.output_tokens};
}

TEST(ContinuousBatching, ReplacesARequestThatEndsByTheNextOfTheTrace) {
  // Rows: A 0-2, B 3, C 4-5, D 6-9, E 10.  B leaves its place to C; A and C end together; D and E start; E ends and
  // nobody is left, so the run ends although D could go on.
  const MemoryTrace trace = NamedRows({{0, 3}, {0, 1}, {0, 2}, {0, 4}, {0, 1}}, 4);
  const auto source = Source(Continuous(1), trace, 2);
  EXPECT_THAT(Drain(*source),
              ElementsAre(ElementsAre(ElementsAre(0), ElementsAre(3)), ElementsAre(ElementsAre(1), ElementsAre(4)),
                          ElementsAre(ElementsAre(2), ElementsAre(5)), ElementsAre(ElementsAre(6), ElementsAre(10))));
  EXPECT_FALSE(source->resampled());
  EXPECT_EQ(source->description(),
            "continuous, 1 running requests a rank on 2 ranks, at most 8192 tokens a rank and step, the trace's 5 "
            "requests in order");
}

TEST(ContinuousBatching, DealsRequestsOverTheRanksAndOrdersTokensByPlace) {
  // Requests 0 1 2 3 take place 0 of rank 0, place 0 of rank 1, place 1 of rank 0, place 1 of rank 1.  Request 0 ends
  // first: request 4 (row 7) takes its place, ahead of request 2 (rows 3-4) in the batch.
  const MemoryTrace trace = NamedRows({{0, 1}, {0, 2}, {0, 2}, {0, 2}, {0, 1}}, 100);
  const auto source = Source(Continuous(2), trace, 2);
  EXPECT_THAT(Drain(*source), ElementsAre(ElementsAre(ElementsAre(0, 3), ElementsAre(1, 5)),
                                          ElementsAre(ElementsAre(7, 4), ElementsAre(2, 6))));
}

TEST(ContinuousBatching, SplitsPrefillIntoWhatTheDecodeTokensLeave) {
  // At most 4 tokens.  Request 0: 6 rows of prefill, then 2 of decode, no prompt before; request 1: 3 rows of decode
  // after a prompt of 10.  Request 1 takes one token a step, so the prefill runs 3 + 3, and decodes in the third step,
  // with which request 1 ends.
  //   step 0: positions 0 1 2 | 10   attended 1+2+3 + 11 = 17, context 3 + 11 = 14, outputs: the decode token
  //   step 1: positions 3 4 5 | 11   attended 4+5+6 + 12 = 27, context 6 + 12 = 18, outputs: decode, end of prefill
  //   step 2: position  6     | 12   attended 7 + 13 = 20,     context 7 + 13 = 20
  for (const int64_t chunk_tokens : {2, 5, 100}) {
    const MemoryTrace trace = NamedRows({{6, 2}, {0, 3, 10}}, chunk_tokens);
    const auto source = Source(Continuous(2, 4), trace, 1);
    std::vector<std::vector<AttentionLoad>> attention;
    EXPECT_THAT(Drain(*source, &attention),
                ElementsAre(ElementsAre(ElementsAre(0, 1, 2, 8)), ElementsAre(ElementsAre(3, 4, 5, 9)),
                            ElementsAre(ElementsAre(6, 10))));
    ASSERT_EQ(attention.size(), 3u);
    EXPECT_EQ(AsTuple(attention[0][0]), Load(4, 2, 1, 17, 14, 1));
    EXPECT_EQ(AsTuple(attention[1][0]), Load(4, 2, 1, 27, 18, 2));
    EXPECT_EQ(AsTuple(attention[2][0]), Load(2, 2, 2, 20, 20, 2));
  }
}

TEST(ContinuousBatching, GivesThePrefillBudgetToTheLongestRunning) {
  // At most 4 tokens; prefills of 2 (rows 0-1), 9 (2-10) and 8 (11-18).  Request 2 replaces request 0 in place 0 after
  // the first step, but request 1 was there before: it takes all 4, then 3 with 1 left for request 2, which then has
  // all 4 only in theory: with request 1 ended and nobody to take its place the run is over.
  const MemoryTrace trace = NamedRows({{2, 0}, {9, 0}, {8, 0}}, 100);
  const auto source = Source(Continuous(2, 4), trace, 1);
  EXPECT_THAT(Drain(*source), ElementsAre(ElementsAre(ElementsAre(0, 1, 2, 3)), ElementsAre(ElementsAre(4, 5, 6, 7)),
                                          ElementsAre(ElementsAre(11, 8, 9, 10))));
}

TEST(ContinuousBatching, TakesContextsFromRecordedPositionsWhereThereAre) {
  MemoryTrace trace(HeaderOf(REQUEST, 1, 1, 65536, 2));
  trace.AddRequest(0, 2, /*prompt_tokens=*/7);
  trace.AddRequest(2, 2, /*prompt_tokens=*/7);
  trace.AddChunk({.tokens = 3, .ids = {0, 16, 32}, .position = {100, 101, 40}, .phase = {DECODE, DECODE, DECODE}});
  trace.AddChunk({.tokens = 1, .ids = {48}, .position = {41}, .phase = {DECODE}});
  const auto source = Source(Continuous(1), trace, 1);
  std::vector<std::vector<AttentionLoad>> attention;
  Drain(*source, &attention);
  ASSERT_EQ(attention.size(), 4u);
  EXPECT_EQ(AsTuple(attention[0][0]), Load(1, 1, 1, 101, 101, 1));
  EXPECT_EQ(AsTuple(attention[1][0]), Load(1, 1, 1, 102, 102, 1));
  EXPECT_EQ(AsTuple(attention[2][0]), Load(1, 1, 1, 41, 41, 1));
  EXPECT_EQ(AsTuple(attention[3][0]), Load(1, 1, 1, 42, 42, 1));
}

TEST(ContinuousBatching, ARowWithoutPhaseDecodes) {
  MemoryTrace trace(HeaderOf(REQUEST, 1, 1, 65536, 2));
  trace.AddRequest(0, 3);
  trace.AddChunk({.tokens = 3, .ids = {0, 16, 32}});
  EXPECT_EQ(Drain(*Source(Continuous(1), trace, 1)).size(), 3u);
}

TEST(ContinuousBatching, EndsAfterMaxSteps) {
  const MemoryTrace trace = NamedRows({{0, 5}, {0, 5}}, 100);
  const auto source = Source(Continuous(1, 0, 3), trace, 2);
  EXPECT_EQ(source->total_steps(), 3);
  EXPECT_EQ(Drain(*source).size(), 3u);
}

TEST(LockStepBatching, StartsAGroupWhenTheLastOfTheGroupBeforeHasEnded) {
  // Rows: A 0-2, B 3 | C 4-5, D 6-7 | E 8.  B's place stays empty until A has ended; E is not a whole group.
  const MemoryTrace trace = NamedRows({{0, 3}, {0, 1}, {0, 2}, {0, 2}, {0, 1}}, 3);
  const auto source = Source(LockStep(1), trace, 2);
  EXPECT_THAT(Drain(*source),
              ElementsAre(ElementsAre(ElementsAre(0), ElementsAre(3)), ElementsAre(ElementsAre(1), ElementsAre()),
                          ElementsAre(ElementsAre(2), ElementsAre()), ElementsAre(ElementsAre(4), ElementsAre(6)),
                          ElementsAre(ElementsAre(5), ElementsAre(7))));
  EXPECT_EQ(source->description(),
            "lock-step, groups of 1 requests a rank on 2 ranks, at most 8192 tokens a rank and step, the trace's 5 "
            "requests in order");
}

TEST(LockStepBatching, SplitsPrefillToo) {
  // At most 3 tokens: prefills of 4 (rows 0-3) and 3 (rows 4-6), started together: 3, then 1 + 2, then 1.
  const MemoryTrace trace = NamedRows({{4, 0}, {3, 0}}, 100);
  EXPECT_THAT(
      Drain(*Source(LockStep(2, 3), trace, 1)),
      ElementsAre(ElementsAre(ElementsAre(0, 1, 2)), ElementsAre(ElementsAre(3, 4, 5)), ElementsAre(ElementsAre(6))));
}

TEST(Resampling, DrawsTwiceThePlacesWithReplacementAndSaysSo) {
  // 4 places, 3 requests of one token each: 8 draws make two steps of 4, dealt over the ranks.  Row = request.
  const MemoryTrace trace = NamedRows({{0, 1}, {0, 1}, {0, 1}}, 100);
  const auto source = Source(Continuous(2), trace, 2, /*seed=*/7);
  EXPECT_TRUE(source->resampled());
  EXPECT_THAT(source->description(), HasSubstr("resampled: 8 requests drawn with replacement from the trace's 3 "
                                               "because 4 run at once"));
  RandomStream random(7, "workload.resample");
  std::vector<int> drawn;
  for (int i = 0; i < 8; ++i) drawn.push_back(static_cast<int>(random.Below(3)));
  EXPECT_THAT(Drain(*source),
              ElementsAre(ElementsAre(ElementsAre(drawn[0], drawn[2]), ElementsAre(drawn[1], drawn[3])),
                          ElementsAre(ElementsAre(drawn[4], drawn[6]), ElementsAre(drawn[5], drawn[7]))));
}

TEST(Resampling, BeginsInTheMiddleOfTheFirstRequests) {
  // One request of 100 decode tokens in 2 places: each starts from a token drawn after the 4 requests were, and the
  // two part ways by the difference.
  const MemoryTrace trace = NamedRows({{0, 100}}, 100);
  RandomStream random(7, "workload.resample");
  for (int i = 0; i < 4; ++i) random.Below(1);
  const int first = static_cast<int>(random.Below(100)), second = static_cast<int>(random.Below(100));
  ASSERT_NE(first, second);
  const Steps steps = Drain(*Source(Continuous(2), trace, 1, /*seed=*/7));
  EXPECT_THAT(steps[0], ElementsAre(ElementsAre(first, second)));
  EXPECT_THAT(steps[1], ElementsAre(ElementsAre(first + 1, second + 1)));
}

TEST(Resampling, IsAFunctionOfTheSeed) {
  const MemoryTrace trace = NamedRows({{0, 3}, {0, 1}, {0, 2}, {0, 4}, {0, 1}}, 4);
  const Steps first = Drain(*Source(Continuous(8), trace, 2, 1));
  EXPECT_EQ(Drain(*Source(Continuous(8), trace, 2, 1)), first);
  EXPECT_NE(Drain(*Source(Continuous(8), trace, 2, 2)), first);
}

TEST(Resampling, LockStepRunsOneGroup) {
  const MemoryTrace trace = NamedRows({{0, 1}, {0, 1}, {0, 1}}, 100);
  const auto source = Source(LockStep(2), trace, 2);
  EXPECT_TRUE(source->resampled());
  EXPECT_THAT(source->description(), HasSubstr("resampled: 4 requests drawn"));
  EXPECT_EQ(Drain(*source).size(), 1u);
}

TEST(Resampling, IsNotNeededWhereEveryPlaceHasItsRequest) {
  const MemoryTrace trace = NamedRows({{0, 1}, {0, 1}, {0, 1}, {0, 1}}, 100);
  EXPECT_FALSE(Source(Continuous(2), trace, 2)->resampled());
  EXPECT_FALSE(Source(LockStep(2), trace, 2)->resampled());
}

// A trace of random requests (prefill, decode and both), with missing ids in some chunks, replayed in every way: each
// token of a request that ended runs exactly once, those of one that was cut off at most once and without a gap, and
// the ids, valid counts and contexts in the batch are the trace's.
struct Shape {
  int layers, top_k, id_bytes;
};
class Conservation : public ::testing::TestWithParam<Shape> {};

TEST_P(Conservation, EveryTokenOfAServedRequestRunsExactlyOnce) {
  const Shape shape = GetParam();
  const int experts = shape.id_bytes == 1 ? 256 : 65536;
  RandomStream random(3, "test");
  MemoryTrace trace(HeaderOf(REQUEST, shape.layers, shape.top_k, experts, shape.id_bytes));
  std::vector<uint8_t> phase;
  std::vector<int64_t> position, request_of;
  for (int r = 0; r < 60; ++r) {
    const int64_t prefill = static_cast<int64_t>(random.Below(3) == 0 ? random.Below(20) : 0);
    const int64_t decode = static_cast<int64_t>(random.Below(12)) + (prefill == 0 ? 1 : 0);
    const int64_t prompt = static_cast<int64_t>(random.Below(50));
    trace.AddRequest(static_cast<int64_t>(phase.size()), prefill + decode, prompt);
    for (int64_t i = 0; i < prefill + decode; ++i) {
      phase.push_back(i < prefill ? PREFILL : DECODE);
      position.push_back(prompt + i);
      request_of.push_back(r);
    }
  }
  const size_t rows = phase.size();
  const size_t row_ids = static_cast<size_t>(shape.layers * shape.top_k);
  std::vector<uint16_t> ids(rows * row_ids);
  for (uint16_t& id : ids) id = static_cast<uint16_t>(random.Below(static_cast<uint64_t>(experts)));
  std::vector<uint8_t> valid(rows * static_cast<size_t>(shape.layers), static_cast<uint8_t>(shape.top_k));
  for (size_t first = 0, c = 0; first < rows; first += 37, ++c) {
    const size_t end = std::min(rows, first + 37);
    MemoryTrace::Columns chunk;
    chunk.tokens = static_cast<int64_t>(end - first);
    chunk.ids.assign(ids.begin() + static_cast<int64_t>(first * row_ids),
                     ids.begin() + static_cast<int64_t>(end * row_ids));
    chunk.phase.assign(phase.begin() + static_cast<int64_t>(first), phase.begin() + static_cast<int64_t>(end));
    if (c % 2 == 1) {
      const auto from = valid.begin() + static_cast<int64_t>(first) * shape.layers;
      const auto to = valid.begin() + static_cast<int64_t>(end) * shape.layers;
      for (auto v = from; v != to; ++v) *v = static_cast<uint8_t>(random.Below(static_cast<uint64_t>(shape.top_k) + 1));
      chunk.valid_count.assign(from, to);
    }
    trace.AddChunk(std::move(chunk));
  }

  for (const bool lock_step : {false, true}) {
    for (const int ranks : {1, 3}) {
      const WorkloadConfig config = lock_step ? LockStep(4, 9) : Continuous(4, 9);
      const auto source = Source(config, trace, ranks);
      // Which row each token is: a batch does not say, so the composer is run beside it.
      CompositionRules rules{ranks, 4, 9, lock_step};
      std::vector<SupplyEntry> supply(60);
      for (uint32_t i = 0; i < 60; ++i) supply[i].request = i;
      RequestComposer composer(rules, trace.requests(), supply, [&](const RequestInfo& request) {
        int64_t prefill = 0;
        while (prefill < request.tokens() && phase[static_cast<size_t>(request.first_token() + prefill)] == PREFILL) {
          ++prefill;
        }
        return absl::StatusOr<int64_t>(prefill);
      });
      ComposedStep composed;
      std::vector<int> runs(rows);
      while (true) {
        const absl::StatusOr<const StepBatch*> next = source->Next(SimTime());
        ASSERT_TRUE(next.ok()) << next.status();
        ASSERT_EQ(*composer.Next(&composed), *next != nullptr);
        if (*next == nullptr) break;
        const StepBatch& batch = **next;
        size_t t = 0;
        for (int rank = 0; rank < ranks; ++rank) {
          ASSERT_EQ(batch.rank_begin[static_cast<size_t>(rank)], static_cast<int>(t));
          AttentionLoad expected;
          for (int p = composed.piece_begin[static_cast<size_t>(rank)];
               p < composed.piece_begin[static_cast<size_t>(rank) + 1]; ++p) {
            const RequestPiece& piece = composed.pieces[static_cast<size_t>(p)];
            for (int64_t row = piece.first_row; row < piece.first_row + piece.tokens; ++row, ++t) {
              const auto r = static_cast<size_t>(row);
              ++runs[r];
              expected.attended_tokens += position[r] + 1;
              for (size_t l = 0; l < static_cast<size_t>(shape.layers); ++l) {
                ASSERT_EQ(batch.valid_count == nullptr ? shape.top_k
                                                       : batch.valid_count[l * static_cast<size_t>(batch.tokens) + t],
                          valid[r * static_cast<size_t>(shape.layers) + l]);
                for (size_t k = 0; k < static_cast<size_t>(shape.top_k); ++k) {
                  uint16_t id = 0;
                  const size_t bytes = static_cast<size_t>(shape.id_bytes);
                  std::memcpy(&id,
                              batch.layer_ids(static_cast<int>(l)) + (t * static_cast<size_t>(shape.top_k) + k) * bytes,
                              bytes);
                  ASSERT_EQ(id, ids[r * row_ids + l * static_cast<size_t>(shape.top_k) + k]);
                }
              }
            }
            expected.tokens += piece.tokens;
          }
          EXPECT_LE(expected.tokens, 9);
          EXPECT_EQ(batch.attention[static_cast<size_t>(rank)].attended_tokens, expected.attended_tokens);
          EXPECT_EQ(batch.attention[static_cast<size_t>(rank)].tokens, expected.tokens);
        }
        ASSERT_EQ(batch.tokens, static_cast<int>(t));
      }
      int served = 0;
      for (const RequestInfo& request : trace.requests()) {
        const auto first = runs.begin() + request.first_token();
        const auto end = first + request.tokens();
        const auto gap = std::find(first, end, 0);
        EXPECT_EQ(std::count(first, gap, 1), gap - first);
        EXPECT_EQ(std::count(gap, end, 0), end - gap);
        served += gap == end ? 1 : 0;
      }
      // What is not served is what was running at the end (fewer than the places), or a last group that is not whole.
      EXPECT_GE(served, 60 - 4 * ranks + 1);
      if (lock_step) {
        EXPECT_EQ(served, 60 / (4 * ranks) * 4 * ranks);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Conservation,
                         ::testing::Values(Shape{1, 1, 1}, Shape{58, 8, 1}, Shape{5, 8, 2}, Shape{24, 4, 1},
                                           Shape{26, 6, 1}, Shape{3, 7, 2}, Shape{2, 10, 1}, Shape{2, 6, 2},
                                           Shape{7, 2, 1}),
                         [](const auto& info) {
                           return absl::StrCat(info.param.layers, "layers_top", info.param.top_k, "_u",
                                               8 * info.param.id_bytes);
                         });

TEST(RequestSteps, AFaultInTheTraceIsReportedWhenItsChunkIsFirstRead) {
  // Rows 0-5 are one request, 2 rows a chunk: the third chunk is met in the fifth step.
  MemoryTrace trace = NamedRows({{0, 6}}, 2);
  trace.Spoil(2);
  const auto source = Source(Continuous(1), trace, 1);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(source->Next(SimTime()).ok());
  EXPECT_EQ(source->Next(SimTime()).status(), absl::DataLossError("memory.eptrace: chunk 2: spoilt"));
}

TEST(RequestSteps, AStopEndsTheCountingOfSteps) {
  const MemoryTrace trace = NamedRows({{0, 5}}, 2);
  const std::atomic<bool> stopped = true;
  EXPECT_EQ(NewStepSource(Continuous(1), trace, 1, 1, StopToken(&stopped)).status().code(),
            absl::StatusCode::kCancelled);
}

std::string ErrorOf(const WorkloadConfig& config, const TraceReader& trace, int ranks) {
  const auto source = NewStepSource(config, trace, ranks, 1);
  EXPECT_EQ(source.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(source.status().message());
}

TEST(RequestSteps, RefusesAWorkloadThatDoesNotFitAndSaysWhatWould) {
  const MemoryTrace trace = NamedRows({{0, 2}, {0, 2}}, 100);
  EXPECT_EQ(ErrorOf(WorkloadConfig(), trace, 2),
            "workload: no batching; choose one of recorded, continuous, lock_step");
  WorkloadConfig recorded;
  recorded.mutable_recorded();
  EXPECT_EQ(ErrorOf(recorded, trace, 2),
            "memory.eptrace: holds requests, not steps: use batching continuous or lock_step");
  EXPECT_EQ(ErrorOf(Continuous(20, 16), trace, 2),
            "workload.continuous.running_requests_per_rank 20: at most 16 fit, because each may need a token in a step "
            "of max_tokens_per_rank 16");
  EXPECT_EQ(ErrorOf(LockStep(0, 15), trace, 2),
            "workload.lock_step.requests_per_rank 16: at most 15 fit, because each may need a token in a step of "
            "max_tokens_per_rank 15");
  EXPECT_EQ(ErrorOf(Continuous(1, 1u << 31), trace, 2),
            "workload.continuous.max_tokens_per_rank 2147483648: on 2 ranks at most 1073741823 fit into a step");
}

TEST(RequestSteps, RefusesRequestsOutsideTheTrace) {
  MemoryTrace trace = NamedRows({{0, 2}}, 100);
  trace.AddRequest(1, 2);
  EXPECT_EQ(ErrorOf(Continuous(1), trace, 1), "memory.eptrace: request 1: rows 1 to 3 are outside the trace's 2 rows");
  const MemoryTrace empty(HeaderOf(REQUEST, 1, 1, 8, 1));
  EXPECT_EQ(ErrorOf(Continuous(1), empty, 1), "memory.eptrace: no request has a token");
}

}  // namespace
}  // namespace epsim
