// The tokens of ranks that are away go to the others: all of them, once, and their attention with them.
#include "models/simulation/survivor_batch.h"

#include "engine/random_stream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;

// Decode tokens of each rank, in contexts of 100 tokens.
StepBatch DecodeBatch(const std::vector<int64_t>& tokens) {
  StepBatch batch;
  batch.rank_begin = {0};
  for (const int64_t n : tokens) {
    batch.tokens += static_cast<int>(n);
    batch.rank_begin.push_back(batch.tokens);
    batch.attention.push_back({.tokens = n,
                               .sequences = n,
                               .decode_tokens = n,
                               .attended_tokens = 100 * n,
                               .context_tokens = 100 * n,
                               .output_tokens = n});
  }
  return batch;
}

AttentionLoad Sum(const StepBatch& batch) {
  AttentionLoad sum;
  for (const AttentionLoad& load : batch.attention) {
    sum.tokens += load.tokens;
    sum.sequences += load.sequences;
    sum.decode_tokens += load.decode_tokens;
    sum.attended_tokens += load.attended_tokens;
    sum.context_tokens += load.context_tokens;
    sum.output_tokens += load.output_tokens;
  }
  return sum;
}

// 13 tokens over three: floor(13 i / 3) = 0, 4, 8, 13.
TEST(SurvivorBatch, DealsAllTokensInOrder) {
  const StepBatch batch = DecodeBatch({5, 3, 4, 1});
  const StepBatch dealt = DealOverSurvivors(batch, {0, 1, 0, 0});
  EXPECT_THAT(dealt.rank_begin, ElementsAre(0, 4, 4, 8, 13));
  EXPECT_EQ(dealt.tokens, 13);
  EXPECT_EQ(dealt.attention[1].tokens, 0);
  EXPECT_EQ(dealt.attention[1].sequences, 0);
  EXPECT_EQ(dealt.attention[1].context_tokens, 0);
  EXPECT_EQ(dealt.attention[3].tokens, 5);
  EXPECT_EQ(dealt.attention[3].context_tokens, 500);
}

// Dealt evenly already, 13 tokens over four are 3, 3, 3, 4.
TEST(SurvivorBatch, WithNobodyAwayAnEvenDealStays) {
  const StepBatch batch = DecodeBatch({3, 3, 3, 4});
  const StepBatch dealt = DealOverSurvivors(batch, {0, 0, 0, 0});
  EXPECT_EQ(dealt.rank_begin, batch.rank_begin);
  for (size_t rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(dealt.attention[rank].tokens, batch.attention[rank].tokens);
    EXPECT_EQ(dealt.attention[rank].sequences, batch.attention[rank].sequences);
    EXPECT_EQ(dealt.attention[rank].context_tokens, batch.attention[rank].context_tokens);
    EXPECT_EQ(dealt.attention[rank].output_tokens, batch.attention[rank].output_tokens);
  }
}

TEST(SurvivorBatch, TheLastRankRunsAll) {
  const StepBatch dealt = DealOverSurvivors(DecodeBatch({5, 3, 4, 1}), {1, 1, 0, 1});
  EXPECT_THAT(dealt.rank_begin, ElementsAre(0, 0, 0, 13, 13));
  EXPECT_EQ(dealt.attention[2].context_tokens, 1300);
}

// Whoever is away, and whatever contexts: nothing is lost, shares differ by one token at most.
TEST(SurvivorBatch, AttentionIsConserved) {
  RandomStream random(1, "survivors");
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<int64_t> tokens;
    for (int rank = 0; rank < 6; ++rank) tokens.push_back(static_cast<int64_t>(random.Below(12)));
    StepBatch batch = DecodeBatch(tokens);
    for (AttentionLoad& load : batch.attention) {
      if (load.tokens > 0) load.attended_tokens = load.context_tokens = 1 + static_cast<int64_t>(random.Below(5000));
    }
    std::vector<char> away(6);
    for (char& a : away) a = random.Below(3) == 0;
    away[random.Below(6)] = 0;
    const StepBatch dealt = DealOverSurvivors(batch, away);
    const AttentionLoad before = Sum(batch), after = Sum(dealt);
    EXPECT_EQ(after.tokens, before.tokens);
    EXPECT_EQ(after.sequences, before.sequences);
    EXPECT_EQ(after.decode_tokens, before.decode_tokens);
    EXPECT_EQ(after.attended_tokens, before.attended_tokens);
    EXPECT_EQ(after.context_tokens, before.context_tokens);
    EXPECT_EQ(after.output_tokens, before.output_tokens);
    int64_t least = batch.tokens, most = 0;
    for (size_t rank = 0; rank < 6; ++rank) {
      const int64_t own = dealt.rank_begin[rank + 1] - dealt.rank_begin[rank];
      EXPECT_EQ(dealt.attention[rank].tokens, own);
      if (away[rank] != 0) {
        EXPECT_EQ(own, 0);
        continue;
      }
      least = std::min(least, own);
      most = std::max(most, own);
    }
    EXPECT_LE(most - least, 1);
  }
}

// Prompts are cut where the deal cuts them: tokens, contexts and logits stay as many.
TEST(SurvivorBatch, PromptsAreConserved) {
  StepBatch batch = DecodeBatch({4, 4});
  // Rank 0 has two decode tokens and a prompt of 60.
  batch.attention[0] = {.tokens = 62,
                        .sequences = 3,
                        .decode_tokens = 2,
                        .attended_tokens = 2000,
                        .context_tokens = 260,
                        .output_tokens = 3};
  batch.tokens = 66;
  batch.rank_begin = {0, 62, 66};
  const AttentionLoad before = Sum(batch), after = Sum(DealOverSurvivors(batch, {0, 0}));
  EXPECT_EQ(after.tokens, before.tokens);
  EXPECT_EQ(after.decode_tokens, before.decode_tokens);
  EXPECT_EQ(after.attended_tokens, before.attended_tokens);
  EXPECT_EQ(after.context_tokens, before.context_tokens);
  EXPECT_EQ(after.output_tokens, before.output_tokens);
}

}  // namespace
}  // namespace epsim
