#include "policies/routing/expert_choice.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "policies/routing/top_tokens.h"

namespace epsim {
namespace {

// What one thread works with, kept from one layer to the next.
struct Workspace {
  TopTokens top;
  std::vector<uint32_t> begin;     // [tokens + 1], into taken_by.
  std::vector<uint64_t> taken_by;  // By token: keys of the experts that took it, ascending.
  std::vector<uint64_t> best;
};

class ExpertChoicePolicy : public RoutingPolicy {
 public:
  ExpertChoicePolicy(const ExpertChoice& config, const RoutingShape& shape) : config_(config), shape_(shape) {}

  void BeginStep(int64_t) override {}
  bool Routes(Layer) const override { return true; }
  void EndStep(absl::Span<const int32_t>) override {}

  void Route(Layer, const RoutingRequest& request, RoutingChoice* choice) const override {
    const size_t tokens = request.tokens, experts = shape_.experts, top_k = shape_.top_k;
    EPSIM_CHECK(tokens > 0 && request.scores.size() == tokens * experts);
    EPSIM_CHECK(request.own.size() == tokens * top_k && request.own_count.size() == tokens);
    thread_local Workspace kept;
    Workspace& work = kept;
    const int capacity = ExpertCapacity(config_.capacity_factor(), request.tokens, shape_.top_k, shape_.experts);
    work.top.Take(request.scores.data(), shape_.experts, request.tokens, shape_.experts, capacity);
    ListByToken(request.tokens, capacity, &work);
    choice->experts.assign(tokens * top_k, 0);
    choice->count.assign(tokens, 0);
    for (size_t token = 0; token < tokens; ++token) {
      const uint64_t* const first = &work.taken_by[work.begin[token]];
      const size_t count = work.begin[token + 1] - work.begin[token];
      uint16_t* const to = &choice->experts[token * top_k];
      if (count == 0) {
        if (config_.fallback() != ExpertChoice::FALLBACK_TOP_K) continue;
        choice->count[token] = request.own_count[token];
        std::copy_n(&request.own[token * top_k], request.own_count[token], to);
      } else if (count <= top_k) {
        choice->count[token] = static_cast<uint8_t>(count);
        for (size_t i = 0; i < count; ++i) to[i] = static_cast<uint16_t>(IndexOfKey(first[i]));
      } else {
        choice->count[token] = static_cast<uint8_t>(top_k);
        work.best.assign(first, first + count);
        GreatestFirst(work.best.data(), work.best.data() + count, top_k);
        const uint64_t last = *std::min_element(work.best.begin(), work.best.begin() + static_cast<ptrdiff_t>(top_k));
        size_t kept = 0;
        for (size_t i = 0; kept < top_k; ++i) {
          to[kept] = static_cast<uint16_t>(IndexOfKey(first[i]));
          kept += first[i] >= last;
        }
      }
    }
  }

 private:
  // From the tokens of each expert to the experts of each token.
  void ListByToken(int tokens, int capacity, Workspace* work) const {
    work->begin.assign(static_cast<size_t>(tokens) + 2, 0);
    uint32_t* const next = work->begin.data() + 1;  // next[t + 1] counts token t, then becomes where t ends.
    for (int expert = 0; expert < shape_.experts; ++expert) {
      const uint64_t* const keys = work->top.of(expert);
      for (int i = 0; i < capacity; ++i) ++next[IndexOfKey(keys[i]) + 1];
    }
    for (int token = 0; token < tokens; ++token) next[token + 1] += next[token];
    work->taken_by.resize(static_cast<size_t>(capacity) * shape_.experts);
    for (int expert = 0; expert < shape_.experts; ++expert) {
      const uint64_t* const keys = work->top.of(expert);
      for (int i = 0; i < capacity; ++i) {
        const uint64_t score = keys[i] & ~uint64_t{0xffff'ffffu};
        work->taken_by[next[IndexOfKey(keys[i])]++] = score | (0xffff'ffffu - static_cast<uint32_t>(expert));
      }
    }
  }

  const ExpertChoice config_;
  const RoutingShape shape_;
};

}  // namespace

int ExpertCapacity(double capacity_factor, int tokens, int top_k, int experts) {
  const double share = capacity_factor * tokens * top_k / experts;
  return static_cast<int>(std::clamp(std::ceil(share - 1e-9), 1.0, static_cast<double>(tokens)));
}

absl::Status CompleteExpertChoice(const std::string& place, ExpertChoice* config) {
  if (!config->has_capacity_factor()) config->set_capacity_factor(1.25);
  const double factor = config->capacity_factor();
  if (!(factor > 0) || !std::isfinite(factor)) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, ".capacity_factor: ", factor,
                     " is not a positive number; 1.25 would leave room for a quarter more than "
                     "the mean load"));
  }
  switch (config->fallback()) {
    case ExpertChoice::FALLBACK_DEFAULT:
      config->set_fallback(ExpertChoice::FALLBACK_TOP_K);
      break;
    case ExpertChoice::FALLBACK_TOP_K:
    case ExpertChoice::FALLBACK_NONE:
      break;
    case ExpertChoice_Fallback_ExpertChoice_Fallback_INT_MIN_SENTINEL_DO_NOT_USE_:
    case ExpertChoice_Fallback_ExpertChoice_Fallback_INT_MAX_SENTINEL_DO_NOT_USE_:
      return absl::InvalidArgumentError(
          absl::StrCat(place, ".fallback: unknown; FALLBACK_TOP_K or FALLBACK_NONE would fit"));
  }
  return absl::OkStatus();
}

std::unique_ptr<RoutingPolicy> NewExpertChoice(const ExpertChoice& complete, const RoutingShape& shape) {
  return std::make_unique<ExpertChoicePolicy>(complete, shape);
}

}  // namespace epsim
