// Part of a trace is a trace: the same tokens, ids, columns and requests, through real files.
#include "traces/slice/slice.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/traces/workload/memory_trace.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;

constexpr int kLayers = 4, kTopK = 2, kExperts = 300;

class Slice : public ::testing::Test {
 protected:
  Slice()
      : folder_(std::filesystem::temp_directory_path() /
                absl::StrCat("slice_test.", getpid(), ".",
                             ::testing::UnitTest::GetInstance()->current_test_info()->name())) {
    std::filesystem::create_directories(folder_);
  }
  ~Slice() override { std::filesystem::remove_all(folder_); }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  static TraceHeader Header(Granularity granularity) {
    TraceHeader header = HeaderOf(granularity, kLayers, kTopK, kExperts, 2, granularity == STEP ? 4 : 0);
    header.set_source("a test");
    header.set_gate_weights(granularity == COUNTS ? NUMBER_FORMAT_NONE : FLOAT16);
    return header;
  }

  // Chunks of two tokens, so that requests and steps lie in several.
  std::unique_ptr<TraceWriter> Create(const std::string& name, Granularity granularity) {
    TraceWriterOptions options;
    options.zstd = name != "raw.eptrace";
    options.chunk_bytes = 256;
    auto writer = TraceWriter::Create(Path(name), Header(granularity), options);
    EXPECT_TRUE(writer.ok()) << writer.status();
    return *std::move(writer);
  }

  std::unique_ptr<TraceReader> Open(const std::string& name) {
    auto reader = TraceReader::OpenRaw(Path(name), folder_.string(), StopToken());
    EXPECT_TRUE(reader.ok()) << reader.status();
    return *std::move(reader);
  }

  absl::Status SliceTo(const TraceReader& trace, const SliceSelection& selection) {
    return SliceTrace(trace, selection, Path("out.eptrace"), {}, StopToken(), nullptr);
  }

  bool OutExists() const { return std::filesystem::exists(Path("out.eptrace")); }

  std::filesystem::path folder_;
};

// Token `row` of a file in layer `layer`: two ids, of which every seventh row misses one, and their weights.
std::vector<int32_t> IdsOf(int row, int layer) { return {(row * 8 + layer) % kExperts, row % 7 == 3 ? -1 : 299}; }
uint16_t WeightOf(int row, int layer, int k) { return static_cast<uint16_t>(row * 100 + layer * 10 + k); }

// Requests of 3, 5, 1 and 4 tokens, decode after prompts of 10, 20, ...
void WriteRequests(TraceWriter* writer) {
  int row = 0;
  for (int r = 0; r < 4; ++r) {
    const int tokens = std::vector<int>{3, 5, 1, 4}[static_cast<size_t>(r)];
    std::vector<int32_t> ids;
    std::vector<uint32_t> position, request_index;
    std::vector<uint8_t> phase;
    std::vector<uint16_t> weights;
    for (int t = 0; t < tokens; ++t, ++row) {
      position.push_back(static_cast<uint32_t>(10 * (r + 1) + t));
      request_index.push_back(static_cast<uint32_t>(r));
      phase.push_back(DECODE);
      for (int l = 0; l < kLayers; ++l) {
        for (int k = 0; k < kTopK; ++k) {
          ids.push_back(IdsOf(row, l)[static_cast<size_t>(k)]);
          weights.push_back(WeightOf(row, l, k));
        }
      }
    }
    RequestInfo request;
    request.set_id(static_cast<uint64_t>(70 + r));
    request.set_tokens(tokens);
    request.set_prompt_tokens(10 * (r + 1));
    request.set_domain(r % 2 == 0 ? "code" : "maths");
    TokenColumns columns;
    columns.position = position;
    columns.request_index = request_index;
    columns.phase = phase;
    columns.gate_weights = {reinterpret_cast<const std::byte*>(weights.data()), weights.size() * 2};
    ASSERT_EQ(writer->AppendRequest(request, ids, columns), absl::OkStatus());
  }
  ASSERT_EQ(writer->Finish(), absl::OkStatus());
}

// What a trace holds, token by token: ids and weights of each layer.
struct Token {
  std::vector<std::vector<int32_t>> ids;
  std::vector<std::vector<uint16_t>> weights;
  int64_t position = -1, request = -1, phase = -1, source_rank = -1, step = -1;
  friend bool operator==(const Token&, const Token&) = default;
};

std::vector<Token> TokensOf(const TraceReader& trace) {
  std::vector<Token> tokens;
  const size_t layers = trace.header().layers();
  for (int64_t c = 0; c < trace.index().chunks_size(); ++c) {
    const absl::StatusOr<TraceChunk> chunk = trace.ReadChunk(c);
    EXPECT_TRUE(chunk.ok()) << chunk.status();
    for (size_t t = 0; t < static_cast<size_t>(chunk->tokens); ++t) {
      Token token;
      for (size_t l = 0; l < layers; ++l) {
        const size_t cell =
            trace.header().granularity() == STEP ? l * static_cast<size_t>(chunk->tokens) + t : t * layers + l;
        const int valid = chunk->valid_count == nullptr ? kTopK : chunk->valid_count[cell];
        token.ids.emplace_back();
        token.weights.emplace_back();
        for (size_t k = 0; k < static_cast<size_t>(valid); ++k) {
          uint16_t id, weight;
          std::memcpy(&id, chunk->ids + (cell * kTopK + k) * 2, 2);
          std::memcpy(&weight, chunk->gate_weights + (cell * kTopK + k) * 2, 2);
          token.ids.back().push_back(id);
          token.weights.back().push_back(weight);
        }
      }
      if (chunk->position != nullptr) token.position = chunk->position[t];
      if (chunk->request_index != nullptr) token.request = chunk->request_index[t];
      if (chunk->phase != nullptr) token.phase = chunk->phase[t];
      if (chunk->source_rank != nullptr) token.source_rank = chunk->source_rank[t];
      if (trace.header().granularity() == STEP) token.step = chunk->step;
      tokens.push_back(std::move(token));
    }
  }
  return tokens;
}

TEST_F(Slice, ByRequestsKeepsTheirTokensAndRenumbersThem) {
  WriteRequests(Create("in.eptrace", REQUEST).get());
  const auto in = Open("in.eptrace");
  ASSERT_EQ(SliceTo(*in, {.requests = SliceRange{1, 3}, .steps = {}, .layers = {}}), absl::OkStatus());
  ASSERT_EQ(VerifyTrace(Path("out.eptrace"), StopToken()), absl::OkStatus());
  const auto out = Open("out.eptrace");
  // Rows 3-7 and 8 of the whole; requests 1 and 2 become 0 and 1.
  std::vector<Token> expected = TokensOf(*in);
  expected = {expected.begin() + 3, expected.begin() + 9};
  for (Token& token : expected) --token.request;
  EXPECT_EQ(TokensOf(*out), expected);
  ASSERT_EQ(out->requests().size(), 2u);
  EXPECT_EQ(out->requests()[0].id(), 71u);
  EXPECT_EQ(out->requests()[0].first_token(), 0);
  EXPECT_EQ(out->requests()[0].prompt_tokens(), 20);
  EXPECT_EQ(out->requests()[1].first_token(), 5);
  EXPECT_EQ(out->requests()[1].domain(), "code");
  EXPECT_EQ(out->header().source(), "a test [requests 1:3]");
  EXPECT_EQ(out->header().model(), "test");
}

TEST_F(Slice, ByLayersKeepsThoseLayersOfEveryToken) {
  WriteRequests(Create("in.eptrace", REQUEST).get());
  const auto in = Open("in.eptrace");
  ASSERT_EQ(SliceTo(*in, {.requests = SliceRange{3, 4}, .steps = {}, .layers = SliceRange{1, 3}}), absl::OkStatus());
  const auto out = Open("out.eptrace");
  std::vector<Token> expected = TokensOf(*in);
  expected.erase(expected.begin(), expected.begin() + 9);
  for (Token& token : expected) {
    token.request = 0;
    token.ids = {token.ids[1], token.ids[2]};
    token.weights = {token.weights[1], token.weights[2]};
  }
  EXPECT_EQ(TokensOf(*out), expected);
  EXPECT_EQ(out->header().layers(), 2u);
  EXPECT_EQ(out->header().source(), "a test [requests 3:4, layers 1:3]");
}

TEST_F(Slice, OfEverythingIsTheSameTrace) {
  WriteRequests(Create("raw.eptrace", REQUEST).get());
  const auto in = Open("raw.eptrace");
  ASSERT_EQ(SliceTo(*in, {}), absl::OkStatus());
  const auto out = Open("out.eptrace");
  EXPECT_EQ(TokensOf(*out), TokensOf(*in));
  EXPECT_EQ(out->header().SerializeAsString(), in->header().SerializeAsString());
  EXPECT_EQ(out->index().missing_ids(), in->index().missing_ids());
  EXPECT_GT(out->index().missing_ids(), 0);
}

// 3 steps of 5 tokens on 4 ranks; tokens of step s belong to requests s, s, s + 1, s + 1, s + 1.
void WriteSteps(TraceWriter* writer) {
  for (int step = 0; step < 3; ++step) {
    std::vector<int32_t> ids;
    std::vector<uint16_t> weights;
    for (int l = 0; l < kLayers; ++l) {
      for (int t = 0; t < 5; ++t) {
        for (int k = 0; k < kTopK; ++k) {
          ids.push_back(IdsOf(5 * step + t, l)[static_cast<size_t>(k)]);
          weights.push_back(WeightOf(5 * step + t, l, k));
        }
      }
    }
    std::vector<RequestInfo> appear(step == 0 ? 2 : 1);
    for (size_t i = 0; i < appear.size(); ++i) {
      appear[i].set_id(static_cast<uint64_t>(step == 0 ? 80 + static_cast<int>(i) : 81 + step));
      appear[i].set_prompt_tokens(5);
    }
    const uint32_t s = static_cast<uint32_t>(step);
    const std::vector<uint32_t> request_index = {s, s, s + 1, s + 1, s + 1};
    const std::vector<uint16_t> source_rank = {0, 1, 1, 2, 3};
    TokenColumns columns;
    columns.request_index = request_index;
    columns.source_rank = source_rank;
    columns.gate_weights = {reinterpret_cast<const std::byte*>(weights.data()), weights.size() * 2};
    ASSERT_EQ(writer->AppendStep(appear, ids, columns), absl::OkStatus());
  }
  ASSERT_EQ(writer->Finish(), absl::OkStatus());
}

TEST_F(Slice, ByStepsKeepsTheRequestsThatTakePart) {
  WriteSteps(Create("in.eptrace", STEP).get());
  const auto in = Open("in.eptrace");
  ASSERT_GT(in->index().chunks_size(), 3);
  ASSERT_EQ(SliceTo(*in, {.requests = {}, .steps = SliceRange{1, 3}, .layers = SliceRange{2, 4}}), absl::OkStatus());
  ASSERT_EQ(VerifyTrace(Path("out.eptrace"), StopToken()), absl::OkStatus());
  const auto out = Open("out.eptrace");
  std::vector<Token> expected = TokensOf(*in);
  expected.erase(expected.begin(), expected.begin() + 5);
  for (Token& token : expected) {
    --token.request;  // 1, 2, 3 become 0, 1, 2.
    --token.step;
    token.ids = {token.ids[2], token.ids[3]};
    token.weights = {token.weights[2], token.weights[3]};
  }
  EXPECT_EQ(TokensOf(*out), expected);
  std::vector<uint64_t> ids;
  for (const RequestInfo& request : out->requests()) ids.push_back(request.id());
  EXPECT_THAT(ids, ElementsAre(81, 82, 83));
  EXPECT_EQ(out->index().steps(), 2);
  EXPECT_EQ(out->header().source_ranks(), 4u);
}

TEST_F(Slice, OfCountsByStepsAndLayers) {
  {
    const auto writer = Create("in.eptrace", COUNTS);
    std::vector<uint32_t> counts(kLayers * kExperts);
    for (uint32_t step = 0; step < 5; ++step) {
      for (uint32_t i = 0; i < counts.size(); ++i) counts[i] = step * 10000 + i;
      ASSERT_EQ(writer->AppendCounts(counts), absl::OkStatus());
    }
    ASSERT_EQ(writer->Finish(), absl::OkStatus());
  }
  const auto in = Open("in.eptrace");
  ASSERT_EQ(SliceTo(*in, {.requests = {}, .steps = SliceRange{2, 4}, .layers = SliceRange{1, 2}}), absl::OkStatus());
  const auto out = Open("out.eptrace");
  EXPECT_EQ(out->index().steps(), 2);
  std::vector<uint32_t> first_counts;
  for (int64_t c = 0; c < out->index().chunks_size(); ++c) {
    const TraceChunk chunk = *out->ReadChunk(c);
    for (int64_t step = 0; step < chunk.tokens; ++step) {
      first_counts.push_back(chunk.counts[step * kExperts]);
      EXPECT_EQ(chunk.counts[step * kExperts + kExperts - 1], first_counts.back() + kExperts - 1);
    }
  }
  // Layer 1 begins with count number 300.
  EXPECT_THAT(first_counts, ElementsAre(20300u, 30300u));
}

TEST_F(Slice, NamesTheRangeThatExistsAndLeavesNothing) {
  WriteRequests(Create("in.eptrace", REQUEST).get());
  const auto in = Open("in.eptrace");
  const auto error = [&](const SliceSelection& selection) {
    const absl::Status status = SliceTo(*in, selection);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_FALSE(OutExists());
    return std::string(status.message());
  };
  EXPECT_EQ(error({.requests = SliceRange{2, 9}, .steps = {}, .layers = {}}),
            in->path() + ": requests 2:9: the trace has requests 0:4");
  EXPECT_EQ(error({.requests = SliceRange{2, 2}, .steps = {}, .layers = {}}),
            in->path() + ": requests 2:2: the trace has requests 0:4");
  EXPECT_EQ(error({.requests = {}, .steps = {}, .layers = SliceRange{-1, 2}}),
            in->path() + ": layers -1:2: the trace has layers 0:4");
  EXPECT_EQ(error({.requests = {}, .steps = SliceRange{0, 1}, .layers = {}}),
            in->path() + ": steps 0:1: the trace has no steps, only requests 0:4");
  WriteSteps(Create("steps.eptrace", STEP).get());
  const auto steps = Open("steps.eptrace");
  EXPECT_EQ(SliceTo(*steps, {.requests = SliceRange{0, 1}, .steps = {}, .layers = {}}).message(),
            steps->path() + ": requests 0:1: the trace is of steps, slice it by steps 0:3");
}

TEST_F(Slice, NeverReplacesTheTraceItself) {
  WriteRequests(Create("in.eptrace", REQUEST).get());
  const auto in = Open("in.eptrace");
  const std::string other_name = (folder_ / "." / "in.eptrace").string();
  EXPECT_EQ(SliceTrace(*in, {}, other_name, {}, StopToken(), nullptr).message(),
            other_name + ": is the trace itself; choose another file");
  EXPECT_EQ(VerifyTrace(Path("in.eptrace"), StopToken()), absl::OkStatus());
}

TEST_F(Slice, AStopLeavesNothing) {
  WriteRequests(Create("in.eptrace", REQUEST).get());
  const auto in = Open("in.eptrace");
  const std::atomic<bool> stopped = true;
  EXPECT_EQ(SliceTrace(*in, {}, Path("out.eptrace"), {}, StopToken(&stopped), nullptr).code(),
            absl::StatusCode::kCancelled);
  EXPECT_FALSE(OutExists());
}

TEST(ParseSliceRange, TakesHalfOpenRanges) {
  const auto parse = [](std::string_view text) {
    const absl::StatusOr<SliceRange> range = ParseSliceRange(text, 20);
    EXPECT_TRUE(range.ok()) << range.status();
    return std::pair(range->begin, range->end);
  };
  EXPECT_EQ(parse("3:7"), std::pair(int64_t{3}, int64_t{7}));
  EXPECT_EQ(parse(":7"), std::pair(int64_t{0}, int64_t{7}));
  EXPECT_EQ(parse("3:"), std::pair(int64_t{3}, int64_t{20}));
  EXPECT_EQ(parse(":"), std::pair(int64_t{0}, int64_t{20}));
}

TEST(ParseSliceRange, SaysWhatIsWrong) {
  const std::map<std::string, std::string> wrong = {
      {"7", "\"7\": no range, expected a:b within 0:20"},
      {"a:b", "\"a:b\": not two whole numbers, expected a:b within 0:20"},
      {"-1:3", "\"-1:3\": not two whole numbers, expected a:b within 0:20"},
      {"1:2:3", "\"1:2:3\": not two whole numbers, expected a:b within 0:20"},
      {"1:99999999999999999999", "\"1:99999999999999999999\": not two whole numbers, expected a:b within 0:20"},
      {"5:5", "\"5:5\": an empty range, expected a:b within 0:20"},
      {"3:21", "\"3:21\": beyond the end, expected a:b within 0:20"}};
  for (const auto& [text, message] : wrong) EXPECT_EQ(ParseSliceRange(text, 20).status().message(), message);
}

}  // namespace
}  // namespace epsim
