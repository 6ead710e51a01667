// Does the recorder keep what tokens chose, of all of them alike?
#include "models/routing/co_activation_recorder.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;

// `ids` [layers, tokens, 2].
template <typename Id>
StepBatch Batch(const std::vector<Id>& ids, int layers) {
  StepBatch batch;
  batch.layers = layers;
  batch.top_k = 2;
  batch.tokens = static_cast<int>(ids.size()) / 2 / layers;
  batch.rank_begin = {0, batch.tokens};
  batch.id_bytes = sizeof(Id);
  batch.ids = reinterpret_cast<const std::byte*>(ids.data());
  batch.layer_stride = static_cast<size_t>(batch.tokens) * 2 * sizeof(Id);
  return batch;
}

TEST(CoActivationRecorder, KeepsAllTokensWhileTheyFit) {
  CoActivationRecorder recorder(1, 4);
  EXPECT_EQ(recorder.view().tokens, 0);
  const std::vector<uint8_t> first = {1, 2, 3, 4, /**/ 5, 6, 7, 8}, second = {9, 10, /**/ 11, 12};
  recorder.Add(Batch(first, 2));
  recorder.Add(Batch(second, 2));
  const CoActivation view = recorder.view();
  EXPECT_EQ(view.layers, 2);
  EXPECT_EQ(view.tokens, 3);
  EXPECT_EQ(view.top_k, 2);
  EXPECT_THAT(view.of(Layer(0)), ElementsAre(1, 2, 3, 4, 9, 10));
  EXPECT_THAT(view.of(Layer(1)), ElementsAre(5, 6, 7, 8, 11, 12));
}

TEST(CoActivationRecorder, TakesWideIdsAndShortTokens) {
  CoActivationRecorder recorder(1, 4);
  const std::vector<uint16_t> ids = {300, 7, 301, 9};
  const std::vector<uint8_t> valid = {1, 2};
  StepBatch batch = Batch(ids, 1);
  batch.valid_count = valid.data();
  recorder.Add(batch);
  EXPECT_THAT(recorder.view().of(Layer(0)), ElementsAre(300, CoActivation::kNone, 301, 9));
}

TEST(CoActivationRecorder, CountsAloneGiveNothing) {
  CoActivationRecorder recorder(1, 4);
  const std::vector<uint32_t> counts = {3, 1};
  StepBatch batch;
  batch.tokens = 2;
  batch.layers = 1;
  batch.top_k = 2;
  batch.counts = counts.data();
  recorder.Add(batch);
  EXPECT_EQ(recorder.view().tokens, 0);
}

TEST(CoActivationRecorder, BeginsAnew) {
  CoActivationRecorder recorder(1, 4);
  const std::vector<uint8_t> first = {1, 2, 3, 4}, second = {5, 6};
  recorder.Add(Batch(first, 1));
  recorder.Clear();
  EXPECT_EQ(recorder.view().tokens, 0);
  recorder.Add(Batch(second, 1));
  EXPECT_THAT(recorder.view().of(Layer(0)), ElementsAre(5, 6));
}

// 200 tokens, each its own expert, in batches of 10; 40 places.  Over 1,000 seeds each token is kept 200 times on
// average, with a standard deviation of sqrt(1000 * 0.2 * 0.8) = 12.6: five of them are 63.
TEST(CoActivationRecorder, KeepsEveryTokenWithTheSameProbability) {
  std::vector<int> kept(200);
  for (uint64_t seed = 0; seed < 1000; ++seed) {
    CoActivationRecorder recorder(seed, 40);
    for (int begin = 0; begin < 200; begin += 10) {
      std::vector<uint8_t> ids;
      for (int token = begin; token < begin + 10; ++token) ids.insert(ids.end(), {static_cast<uint8_t>(token), 255});
      recorder.Add(Batch(ids, 1));
    }
    const CoActivation view = recorder.view();
    ASSERT_EQ(view.tokens, 40);
    for (int token = 0; token < 40; ++token) ++kept[view.experts[2 * token]];
  }
  for (int count : kept) EXPECT_NEAR(count, 200, 63);
}

TEST(CoActivationRecorder, EqualSeedsKeepEqualTokens) {
  std::vector<uint16_t> sample[2];
  for (auto& of_run : sample) {
    CoActivationRecorder recorder(3, 5);
    std::vector<uint8_t> ids(200);
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<uint8_t>(i);
    recorder.Add(Batch(ids, 1));
    const CoActivation view = recorder.view();
    of_run.assign(view.experts.begin(), view.experts.end());
  }
  EXPECT_EQ(sample[0], sample[1]);
}

}  // namespace
}  // namespace epsim
