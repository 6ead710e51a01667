#include "traces/workload/request_composer.h"

#include <algorithm>
#include <utility>

#include "engine/check.h"
#include "engine/status_macros.h"

namespace epsim {

RequestComposer::RequestComposer(const CompositionRules& rules, absl::Span<const RequestInfo> requests,
                                 absl::Span<const SupplyEntry> supply, PrefillRows prefill_rows)
    : rules_(rules),
      requests_(requests),
      supply_(supply),
      prefill_rows_(std::move(prefill_rows)),
      places_(static_cast<size_t>(rules.ranks) * static_cast<size_t>(rules.requests_per_rank)),
      empty_(static_cast<int64_t>(places_.size())),
      granted_(static_cast<size_t>(rules.requests_per_rank)) {
  EPSIM_CHECK(rules.ranks > 0 && rules.requests_per_rank > 0);
  EPSIM_CHECK(rules.max_tokens_per_rank >= rules.requests_per_rank);
}

absl::StatusOr<bool> RequestComposer::FillPlaces() {
  if (empty_ == 0 || (rules_.lock_step && empty_ < static_cast<int64_t>(places_.size()))) return true;
  if (static_cast<int64_t>(supply_.size() - taken_) < empty_) return false;
  for (int i = 0; i < rules_.requests_per_rank; ++i) {
    for (int rank = 0; rank < rules_.ranks; ++rank) {
      Place& place = places_[static_cast<size_t>(rank) * rules_.requests_per_rank + i];
      if (place.next < place.end) continue;
      const SupplyEntry& entry = supply_[taken_];
      place.request = entry.request;
      place.order = taken_++;
      const RequestInfo& request = requests_[place.request];
      EPSIM_CHECK(entry.skipped >= 0 && entry.skipped < request.tokens());
      ASSIGN_OR_RETURN(const int64_t prefill, prefill_rows_(request));
      EPSIM_CHECK(prefill >= 0 && prefill <= request.tokens());
      place.next = request.first_token() + entry.skipped;
      place.decode_begin = request.first_token() + prefill;
      place.end = request.first_token() + request.tokens();
    }
  }
  empty_ = 0;
  return true;
}

void RequestComposer::ComposeRank(int rank, ComposedStep* step) {
  Place* const places = places_.data() + static_cast<size_t>(rank) * rules_.requests_per_rank;
  int64_t budget = rules_.max_tokens_per_rank;
  prefills_.clear();
  for (int i = 0; i < rules_.requests_per_rank; ++i) {
    if (places[i].next >= places[i].end) continue;
    if (places[i].next < places[i].decode_begin) {
      prefills_.push_back(&places[i]);
    } else {
      --budget;
    }
  }
  std::sort(prefills_.begin(), prefills_.end(), [](const Place* a, const Place* b) { return a->order < b->order; });
  for (Place* place : prefills_) {
    const int64_t granted = std::min(budget, place->decode_begin - place->next);
    granted_[place - places] = granted;
    budget -= granted;
  }
  for (int i = 0; i < rules_.requests_per_rank; ++i) {
    Place& place = places[i];
    if (place.next >= place.end) continue;
    const bool prefill = place.next < place.decode_begin;
    const int64_t tokens = prefill ? granted_[i] : 1;
    if (tokens == 0) continue;
    const int64_t first_row = place.next;
    place.next += tokens;
    const bool output = !prefill || place.next == place.decode_begin;
    step->pieces.push_back({first_row, static_cast<int32_t>(tokens), place.request,
                            static_cast<int32_t>(&place - places_.data()), output ? 1 : 0});
    if (place.next == place.end) ++empty_;
  }
}

absl::StatusOr<bool> RequestComposer::Next(ComposedStep* step) {
  step->pieces.clear();
  step->piece_begin.assign(1, 0);
  if (ended_) return false;
  ASSIGN_OR_RETURN(const bool filled, FillPlaces());
  if (!filled) {
    ended_ = true;
    return false;
  }
  for (int rank = 0; rank < rules_.ranks; ++rank) {
    ComposeRank(rank, step);
    step->piece_begin.push_back(static_cast<int32_t>(step->pieces.size()));
  }
  return true;
}

}  // namespace epsim
