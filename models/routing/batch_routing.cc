#include "models/routing/batch_routing.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "engine/check.h"
#include "engine/status_macros.h"
#include "models/routing/router_scores.h"

namespace epsim {
namespace {

// One source rank's tokens in one layer; what one thread works with, kept from one to the next.
struct Workspace {
  std::vector<float> scores;       // [tokens, experts]
  std::vector<uint16_t> own;       // [tokens, top_k]
  std::vector<uint8_t> own_count;  // [tokens]
  RoutingChoice choice;
};

template <typename Id>
void StoreIds(absl::Span<const uint16_t> ids, std::byte* to) {
  for (size_t i = 0; i < ids.size(); ++i) {
    const Id id = static_cast<Id>(ids[i]);
    std::memcpy(to + i * sizeof(Id), &id, sizeof(Id));
  }
}

}  // namespace

BatchRouting::BatchRouting(std::unique_ptr<RoutingPolicy> policy, bool go_by_load, const RoutingShape& shape,
                           Scores scores)
    : policy_(std::move(policy)),
      go_by_load_(go_by_load),
      shape_(shape),
      scores_(scores),
      departures_(shape.layers),
      past_load_(scores == Scores::kByRank ? static_cast<size_t>(shape.layers) * shape.experts : 0),
      status_(shape.layers) {}

absl::StatusOr<const StepBatch*> BatchRouting::Apply(const StepBatch& captured, ForEach for_each) {
  EPSIM_CHECK(captured.ids != nullptr && captured.layers == shape_.layers && captured.top_k == shape_.top_k);
  EPSIM_CHECK(captured.rank_begin.size() == static_cast<size_t>(shape_.ranks) + 1);
  policy_->BeginStep(captured.tokens);
  any_ = false;
  for (int layer = 0; layer < shape_.layers; ++layer) {
    departures_[layer] = {};
    departures_[layer].routed_anew = policy_->Routes(Layer(layer));
    any_ = any_ || departures_[layer].routed_anew;
  }
  const bool count_load = go_by_load_ || scores_ == Scores::kByRank;
  load_.assign(count_load ? static_cast<size_t>(shape_.layers) * shape_.experts : 0, 0);
  if (any_) {
    const size_t element = static_cast<size_t>(captured.top_k) * captured.id_bytes;
    const size_t tokens = static_cast<size_t>(captured.tokens);
    routed_ = captured;
    routed_.layer_stride = tokens * element;
    planes_.resize(std::max(planes_.size(), routed_.layer_stride * shape_.layers));
    valid_.resize(std::max(valid_.size(), tokens * shape_.layers));
    routed_.ids = planes_.data();
    routed_.valid_count = valid_.data();
  }
  for_each(shape_.layers, [&](int layer) {
    if (count_load) CountLoad(captured, layer);
    if (departures_[layer].routed_anew) {
      status_[layer] = RouteLayer(captured, layer);
    } else {
      KeepLayer(captured, layer);
    }
  });
  for (const absl::Status& status : status_) RETURN_IF_ERROR(status);
  RETURN_IF_ERROR(policy_->status());
  policy_->EndStep(go_by_load_ ? absl::MakeConstSpan(load_) : absl::Span<const int32_t>());
  for (size_t i = 0; i < past_load_.size(); ++i) past_load_[i] += load_[i];
  return any_ ? &routed_ : &captured;
}

void BatchRouting::CountLoad(const StepBatch& captured, int layer) {
  thread_local Workspace work;
  const size_t tokens = captured.tokens, top_k = shape_.top_k;
  work.own.resize(tokens * top_k);
  work.own_count.resize(tokens);
  ReadChoice(captured, layer, 0, captured.tokens, absl::MakeSpan(work.own), absl::MakeSpan(work.own_count));
  int32_t* const load = &load_[static_cast<size_t>(layer) * shape_.experts];
  for (size_t token = 0; token < tokens; ++token) {
    for (size_t k = 0; k < work.own_count[token]; ++k) ++load[work.own[token * top_k + k]];
  }
}

void BatchRouting::KeepLayer(const StepBatch& captured, int layer) {
  RoutingDeparture& departure = departures_[layer];
  const size_t tokens = captured.tokens, top_k = shape_.top_k;
  const uint8_t* const valid = captured.valid_count == nullptr ? nullptr : captured.valid_count + layer * tokens;
  departure.pairs = captured.tokens * shape_.top_k;
  departure.tokens = captured.tokens;
  if (valid != nullptr) {
    departure.pairs = std::accumulate(valid, valid + tokens, int64_t{0});
    departure.tokens = captured.tokens - std::count(valid, valid + tokens, 0);
  }
  departure.kept_pairs = departure.routed_pairs = departure.pairs;
  if (!any_) return;
  std::memcpy(planes_.data() + layer * routed_.layer_stride, captured.layer_ids(layer), routed_.layer_stride);
  uint8_t* const to = valid_.data() + layer * tokens;
  if (valid == nullptr) {
    std::fill(to, to + tokens, static_cast<uint8_t>(top_k));
  } else {
    std::copy(valid, valid + tokens, to);
  }
}

absl::Status BatchRouting::RouteLayer(const StepBatch& captured, int layer) {
  thread_local Workspace work;
  RoutingDeparture& departure = departures_[layer];
  const size_t top_k = shape_.top_k, experts = shape_.experts;
  for (int rank = 0; rank < shape_.ranks; ++rank) {
    const int begin = captured.rank_begin[rank], end = captured.rank_begin[rank + 1];
    if (begin == end) continue;
    const size_t tokens = static_cast<size_t>(end - begin);
    work.own.resize(tokens * top_k);
    work.own_count.resize(tokens);
    ReadChoice(captured, layer, begin, end, absl::MakeSpan(work.own), absl::MakeSpan(work.own_count));
    work.scores.resize(tokens * experts);
    if (scores_ == Scores::kCaptured) {
      RETURN_IF_ERROR(ReadScores(captured, layer, begin, end, absl::MakeSpan(work.scores)));
    } else {
      ScoresByRank(work.own, work.own_count, shape_.top_k, {&past_load_[layer * experts], experts},
                   absl::MakeSpan(work.scores));
    }
    const RoutingChoice& choice = work.choice;
    policy_->Route(Layer(layer),
                   {.tokens = end - begin, .scores = work.scores, .own = work.own, .own_count = work.own_count},
                   &work.choice);
    EPSIM_CHECK(choice.experts.size() == tokens * top_k && choice.count.size() == tokens);
    for (size_t token = 0; token < tokens; ++token) {
      const uint16_t* const own = &work.own[token * top_k];
      const uint16_t* const now = &choice.experts[token * top_k];
      const size_t own_count = work.own_count[token], now_count = choice.count[token];
      EPSIM_CHECK(now_count <= top_k);
      departure.pairs += static_cast<int64_t>(own_count);
      departure.routed_pairs += static_cast<int64_t>(now_count);
      departure.tokens += own_count > 0;
      departure.dropped_tokens += own_count > 0 && now_count == 0;
      for (size_t k = 0; k < own_count; ++k) {
        departure.kept_pairs += std::find(now, now + now_count, own[k]) != now + now_count;
      }
    }
    const size_t row = static_cast<size_t>(layer) * captured.tokens + begin;
    std::byte* const to = &planes_[row * top_k * captured.id_bytes];
    captured.id_bytes == 1 ? StoreIds<uint8_t>(choice.experts, to) : StoreIds<uint16_t>(choice.experts, to);
    std::copy(choice.count.begin(), choice.count.end(), valid_.begin() + static_cast<std::ptrdiff_t>(row));
  }
  return absl::OkStatus();
}

}  // namespace epsim
