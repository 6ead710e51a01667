#include "models/routing/router_scores.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "traces/format/float_numbers.h"

namespace epsim {
namespace {

bool AnyNan(absl::Span<const float> scores) {
  bool nan = false;
  for (const float score : scores) nan |= score != score;
  return nan;
}

template <typename Id>
void CopyIds(const std::byte* from, absl::Span<uint16_t> to) {
  for (size_t i = 0; i < to.size(); ++i) {
    Id id;
    std::memcpy(&id, from + i * sizeof(Id), sizeof(Id));
    to[i] = id;
  }
}

}  // namespace

absl::Status ReadScores(const StepBatch& batch, int layer, int begin, int end, absl::Span<float> scores) {
  EPSIM_CHECK(begin < end && static_cast<size_t>(end) <= batch.scores.size());
  const size_t experts = scores.size() / static_cast<size_t>(end - begin);
  for (int token = begin; token < end; ++token) {
    const TokenScores& of_token = batch.scores[token];
    const absl::Span<float> row = scores.subspan(static_cast<size_t>(token - begin) * experts, experts);
    ToFloats(batch.score_format, of_token.first + static_cast<size_t>(layer) * of_token.layer_stride, row);
    if (!AnyNan(row)) continue;
    const auto expert = std::find_if(row.begin(), row.end(), [](float score) { return std::isnan(score); });
    return absl::DataLossError(absl::StrCat("token ", token, ", MoE layer ", layer, ", expert ", expert - row.begin(),
                                            ": the router's score is not a number"));
  }
  return absl::OkStatus();
}

void ReadChoice(const StepBatch& batch, int layer, int begin, int end, absl::Span<uint16_t> own,
                absl::Span<uint8_t> own_count) {
  const size_t first = static_cast<size_t>(begin), tokens = static_cast<size_t>(end - begin);
  EPSIM_CHECK(own.size() == tokens * batch.top_k && own_count.size() == tokens);
  const std::byte* const ids = batch.layer_ids(layer) + first * batch.top_k * batch.id_bytes;
  batch.id_bytes == 1 ? CopyIds<uint8_t>(ids, own) : CopyIds<uint16_t>(ids, own);
  if (batch.valid_count == nullptr) {
    std::fill(own_count.begin(), own_count.end(), static_cast<uint8_t>(batch.top_k));
  } else {
    std::copy_n(batch.valid_count + static_cast<size_t>(layer) * batch.tokens + first, tokens, own_count.begin());
  }
}

void ScoresByRank(absl::Span<const uint16_t> own, absl::Span<const uint8_t> own_count, int top_k,
                  absl::Span<const int64_t> load, absl::Span<float> scores) {
  const size_t experts = load.size();
  EPSIM_CHECK(scores.size() == own_count.size() * experts && own.size() == own_count.size() * top_k);
  const double most = static_cast<double>(*std::max_element(load.begin(), load.end()));
  for (size_t expert = 0; expert < experts; ++expert) {
    scores[expert] = most > 0 ? static_cast<float>(0.5 * static_cast<double>(load[expert]) / most) : 0;
  }
  for (size_t token = 1; token < own_count.size(); ++token) {
    std::copy_n(scores.begin(), experts, scores.begin() + token * experts);
  }
  for (size_t token = 0; token < own_count.size(); ++token) {
    for (int k = 0; k < own_count[token]; ++k) {
      scores[token * experts + own[token * top_k + k]] = static_cast<float>(1 - k / (2.0 * top_k));
    }
  }
}

}  // namespace epsim
