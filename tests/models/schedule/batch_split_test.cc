// What a batch is cut into: every token in one piece, and attention that adds up.
#include "models/schedule/batch_split.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "engine/random_stream.h"
#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/schedule/schedule_config.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ScheduleConfig Config(const std::string& text) {
  ScheduleConfig config;
  EXPECT_TRUE(ParseTextProto(text, "a test", &config).ok());
  return CompleteScheduleConfig(config).value();
}

// `tokens` [ranks] of decode, or of one prompt a rank.
StepBatch Batch(const std::vector<int>& tokens, bool decode = true) {
  StepBatch batch;
  batch.rank_begin = {0};
  for (const int64_t count : tokens) {
    batch.tokens += static_cast<int>(count);
    batch.rank_begin.push_back(batch.tokens);
    if (count == 0) {
      batch.attention.emplace_back();
    } else if (decode) {
      batch.attention.push_back({.tokens = count,
                                 .sequences = count,
                                 .decode_tokens = count,
                                 .attended_tokens = 100 * count,
                                 .context_tokens = 100 * count,
                                 .output_tokens = count});
    } else {
      batch.attention.push_back({.tokens = count,
                                 .sequences = 1,
                                 .attended_tokens = count * (count + 1) / 2,
                                 .context_tokens = count,
                                 .output_tokens = 1});
    }
  }
  return batch;
}

TEST(SplitBatch, LeavesABatchWholeUnlessAsked) {
  const BatchSplit split = SplitBatch(Config(""), Batch({5, 3})).value();
  EXPECT_EQ(split.shape, BatchShape{});
  ASSERT_EQ(split.pieces.size(), 1u);
  EXPECT_THAT(split.pieces[0].begin, ElementsAre(0, 5));
  EXPECT_THAT(split.pieces[0].end, ElementsAre(5, 8));
  EXPECT_EQ(split.max_tokens_per_rank, 5);
}

// ceil(2 ranks * 5 tokens / 4) = 3 chunks.  Rank 0's 5 tokens: 2, 2, 1; rank 1's 1: 1, 0, 0.
TEST(SplitBatch, ChunksAreAsEvenAsPossible) {
  const BatchSplit split = SplitBatch(Config("max_tokens: 4"), Batch({5, 1})).value();
  ASSERT_EQ(split.shape.chunks, 3);
  EXPECT_THAT(split.pieces[0].begin, ElementsAre(0, 5));
  EXPECT_THAT(split.pieces[0].end, ElementsAre(2, 6));
  EXPECT_THAT(split.pieces[1].begin, ElementsAre(2, 6));
  EXPECT_THAT(split.pieces[1].end, ElementsAre(4, 6));
  EXPECT_THAT(split.pieces[2].begin, ElementsAre(4, 6));
  EXPECT_THAT(split.pieces[2].end, ElementsAre(5, 6));
  EXPECT_EQ(split.max_tokens_per_rank, 2);
}

TEST(SplitBatch, TheLimitItselfIsOneChunk) {
  EXPECT_EQ(SplitBatch(Config("max_tokens: 10"), Batch({5, 1}))->shape.chunks, 1);
  EXPECT_EQ(SplitBatch(Config("max_tokens: 9"), Batch({5, 1}))->shape.chunks, 2);
  EXPECT_EQ(SplitBatch(Config("max_tokens: 1"), Batch({0, 0}))->shape.chunks, 1);
}

TEST(SplitBatch, SaysWhichLimitWouldDoWhereChunksAreTooMany) {
  // 2 * 1,000 rows in at most 64 chunks: 32 a chunk.
  const absl::Status status = SplitBatch(Config("max_tokens: 31"), Batch({1000, 3})).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("max_tokens: 31"));
  EXPECT_THAT(status.message(), HasSubstr("65 chunks"));
  EXPECT_THAT(status.message(), HasSubstr("32 or more"));
  EXPECT_EQ(SplitBatch(Config("max_tokens: 32"), Batch({1000, 3}))->shape.chunks, 63);
}

TEST(SplitBatch, HalvesARanksTokens) {
  const BatchSplit split = SplitBatch(Config("external { two_batch_overlap {} }"), Batch({5, 1, 0})).value();
  EXPECT_EQ(split.shape.halves, BatchShape::Halves::kDecodeOrder);
  EXPECT_EQ(split.shape.chunks, 1);
  ASSERT_EQ(split.pieces.size(), 2u);
  EXPECT_THAT(split.pieces[0].begin, ElementsAre(0, 5, 6));
  EXPECT_THAT(split.pieces[0].end, ElementsAre(2, 5, 6));
  EXPECT_THAT(split.pieces[1].begin, ElementsAre(2, 5, 6));
  EXPECT_THAT(split.pieces[1].end, ElementsAre(5, 6, 6));
  EXPECT_EQ(split.max_tokens_per_rank, 3);
  ASSERT_EQ(split.attention.size(), 3u);
  EXPECT_EQ(split.attention[1][0].decode_tokens, 2);
  EXPECT_EQ(split.attention[1][0].context_tokens, 200);
  EXPECT_EQ(split.attention[2][0].context_tokens, 300);
}

TEST(SplitBatch, TheOrderOfHalvesIsThatOfThePhase) {
  const ScheduleConfig by_phase = Config("external { two_batch_overlap {} }");
  EXPECT_EQ(SplitBatch(by_phase, Batch({4, 4}, false))->shape.halves, BatchShape::Halves::kPrefillOrder);
  StepBatch mixed = Batch({4, 4});
  mixed.attention[1] = Batch({4}, false).attention[0];
  EXPECT_EQ(SplitBatch(by_phase, mixed)->shape.halves, BatchShape::Halves::kPrefillOrder);
  EXPECT_EQ(SplitBatch(Config("external { two_batch_overlap { order: DECODE } }"), mixed)->shape.halves,
            BatchShape::Halves::kDecodeOrder);
  EXPECT_EQ(SplitBatch(Config("external { two_batch_overlap { order: PREFILL } }"), Batch({4}))->shape.halves,
            BatchShape::Halves::kPrefillOrder);
}

TEST(SplitBatch, DoesNotHalveABatchThatGivesNoRankTwoTokens) {
  const BatchSplit split = SplitBatch(Config("external { two_batch_overlap {} }"), Batch({1, 1, 0})).value();
  EXPECT_EQ(split.shape, BatchShape{});
}

// Law: every token of every rank is in exactly one piece, pieces differ by one token at most, and none is longer than
// max_tokens_per_rank.
TEST(SplitBatchLaws, EveryTokenIsInOnePiece) {
  RandomStream random(1, "batches");
  for (int round = 0; round < 300; ++round) {
    std::vector<int> tokens(1 + random.Below(9));
    for (int& count : tokens) count = static_cast<int>(random.Below(40));
    const StepBatch batch = Batch(tokens, random.Below(2) == 0);
    for (const std::string& text :
         {std::string("external { two_batch_overlap {} }"), "max_tokens: " + std::to_string(8 + random.Below(100))}) {
      const BatchSplit split = SplitBatch(Config(text), batch).value();
      ASSERT_EQ(static_cast<int>(split.pieces.size()), split.shape.pieces());
      std::vector<int> pieces_of(batch.tokens);
      int longest = 0;
      for (size_t rank = 0; rank < tokens.size(); ++rank) {
        int least = tokens[rank], most = 0;
        for (const TokenRange& range : split.pieces) {
          ASSERT_GE(range.begin[rank], batch.rank_begin[rank]);
          ASSERT_LE(range.end[rank], batch.rank_begin[rank + 1]);
          for (int32_t token = range.begin[rank]; token < range.end[rank]; ++token) ++pieces_of[token];
          least = std::min(least, range.end[rank] - range.begin[rank]);
          most = std::max(most, range.end[rank] - range.begin[rank]);
        }
        ASSERT_LE(most - least, 1);
        longest = std::max(longest, most);
      }
      ASSERT_TRUE(std::all_of(pieces_of.begin(), pieces_of.end(), [](int pieces) { return pieces == 1; }));
      ASSERT_EQ(split.max_tokens_per_rank, longest);
      if (split.shape.chunks > 1) {
        ASSERT_GT(static_cast<int>(tokens.size()) * *std::max_element(tokens.begin(), tokens.end()),
                  static_cast<int>(Config(text).max_tokens()));
      }
    }
  }
}

// A prompt of 8 tokens cut in the middle: both pieces have a part of it, and half of what it attends to.
TEST(AttentionOfTokens, SharesAPrompt) {
  const AttentionLoad load = Batch({8}, false).attention[0];
  const AttentionLoad piece = AttentionOfTokens(load, 0, 4);
  EXPECT_EQ(piece.tokens, 4);
  EXPECT_EQ(piece.sequences, 1);
  EXPECT_EQ(piece.decode_tokens, 0);
  EXPECT_EQ(piece.attended_tokens, 18);
  EXPECT_EQ(piece.context_tokens, 4);
  EXPECT_EQ(AttentionOfTokens(load, 4, 8).sequences, 1);
}

TEST(AttentionOfTokens, CountsASingleTokenOfAPromptAsDecode) {
  const AttentionLoad piece = AttentionOfTokens(Batch({3}, false).attention[0], 0, 1);
  EXPECT_EQ(piece.decode_tokens, 1);
  EXPECT_EQ(piece.sequences, 1);
  EXPECT_EQ(piece.attended_tokens, piece.context_tokens);
}

// Law: pieces add up, and each is a load that a step can have: a prompt has two tokens or more, what is not decode is
// of a prompt, and a sequence reads the tokens that it has at least.
TEST(AttentionOfTokensLaws, PiecesAddUpAndAreLoads) {
  RandomStream random(2, "loads");
  for (int round = 0; round < 2000; ++round) {
    const int64_t decode = static_cast<int64_t>(random.Below(20));
    AttentionLoad load{.tokens = decode, .sequences = decode, .decode_tokens = decode, .output_tokens = decode};
    for (int64_t i = 0; i < decode; ++i) load.context_tokens += 1 + static_cast<int64_t>(random.Below(1000));
    load.attended_tokens = load.context_tokens;
    for (uint64_t prompts = random.Below(4); prompts > 0; --prompts) {
      const auto tokens = 2 + static_cast<int64_t>(random.Below(50)), before = static_cast<int64_t>(random.Below(100));
      load.tokens += tokens;
      ++load.sequences;
      ++load.output_tokens;
      load.context_tokens += before + tokens;
      load.attended_tokens += tokens * before + tokens * (tokens + 1) / 2;
    }
    const auto cut = static_cast<int64_t>(random.Below(static_cast<uint64_t>(load.tokens) + 1));
    const AttentionLoad first = AttentionOfTokens(load, 0, cut), second = AttentionOfTokens(load, cut, load.tokens);
    ASSERT_EQ(first.tokens + second.tokens, load.tokens);
    ASSERT_EQ(first.context_tokens + second.context_tokens, load.context_tokens);
    ASSERT_EQ(first.output_tokens + second.output_tokens, load.output_tokens);
    for (const AttentionLoad& piece : {first, second}) {
      const int64_t prefill = piece.tokens - piece.decode_tokens, prompts = piece.sequences - piece.decode_tokens;
      ASSERT_GE(piece.decode_tokens, 0);
      ASSERT_GE(prompts, 0);
      ASSERT_GE(prefill, 2 * prompts);
      ASSERT_EQ(prefill > 0, prompts > 0);
      ASSERT_GE(piece.context_tokens, piece.tokens);
      ASSERT_GE(piece.attended_tokens, 0);
    }
  }
}

}  // namespace
}  // namespace epsim
