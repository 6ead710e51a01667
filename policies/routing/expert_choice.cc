#include "policies/routing/expert_choice.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/check.h"

namespace epsim {
namespace {

// Orders as the float does; -0 is 0.
uint32_t OrderedBits(float score) {
  const uint32_t bits = std::bit_cast<uint32_t>(score + 0.0f);
  return bits & 0x8000'0000u ? ~bits : bits | 0x8000'0000u;
}
// Of a greater key the score is higher or, where it is equal, `index` lower.
uint64_t Key(float score, uint32_t index) { return uint64_t{OrderedBits(score)} << 32 | (0xffff'ffffu - index); }
uint32_t IndexOfKey(uint64_t key) { return 0xffff'ffffu - static_cast<uint32_t>(key); }

// Moves the `count` greatest of [begin, end) to the front, in no particular order.
void GreatestFirst(uint64_t* begin, uint64_t* end, size_t count) {
  if (count >= static_cast<size_t>(end - begin)) return;
  std::nth_element(begin, begin + count, end, std::greater<>());
}

// What each expert takes of the tokens of one source rank.
class TopTokens {
 public:
  // `scores` [tokens, experts].
  void Take(const float* scores, int tokens, int experts, int capacity) {
    tokens_ = tokens, experts_ = experts, capacity_ = capacity;
    SetBars(scores);
    Collect(scores);
    for (int expert = 0; expert < experts; ++expert) {
      uint64_t* const own = &candidates_[static_cast<size_t>(expert) * room_];
      if (count_[expert] >= capacity && count_[expert] <= room_) {
        GreatestFirst(own, own + count_[expert], capacity);
        continue;
      }
      // The sampled tokens were not like the others: too few candidates, or too many.
      all_.resize(tokens);
      for (int token = 0; token < tokens; ++token) {
        all_[token] = Key(scores[static_cast<size_t>(token) * experts + expert], static_cast<uint32_t>(token));
      }
      GreatestFirst(all_.data(), all_.data() + tokens, capacity);
      std::copy_n(all_.data(), capacity, own);
    }
  }
  // Keys of the tokens that `expert` takes.  [capacity]
  const uint64_t* of(int expert) const { return &candidates_[static_cast<size_t>(expert) * room_]; }

 private:
  static constexpr int kSample = 256;

  // Only tokens at or above an expert's bar are candidates.  It is set by a sample of tokens, at three standard
  // deviations more than the sample's part of the capacity, so that nearly always the bar is below the last that the
  // expert takes: what is taken does not depend on it.
  void SetBars(const float* scores) {
    const size_t experts = experts_;
    bars_.assign(experts, -std::numeric_limits<float>::infinity());
    int room = tokens_;
    const int stride = tokens_ / kSample;
    const double expected = static_cast<double>(capacity_) / std::max(1, stride);
    const int place = static_cast<int>(expected + 3 * std::sqrt(expected)) + 2;
    if (stride >= 2 && place < kSample) {
      room = std::min(tokens_, 2 * place * stride);
      sample_.resize(experts * kSample);
      for (int i = 0; i < kSample; ++i) {
        const float* const row = scores + static_cast<size_t>(i) * stride * experts;
        for (size_t expert = 0; expert < experts; ++expert) sample_[expert * kSample + i] = row[expert];
      }
      for (size_t expert = 0; expert < experts; ++expert) {
        float* const sample = &sample_[expert * kSample];
        std::nth_element(sample, sample + place, sample + kSample, std::greater<>());
        bars_[expert] = sample[place];
      }
    }
    // An odd number of 64-byte lines, so that the experts' candidates do not fall into one set of the cache.
    room_ = ((room + 7) / 8 | 1) * 8;
    candidates_.resize(experts * room_);
    count_.assign(experts, 0);
  }

  void Collect(const float* scores) {
    const size_t experts = experts_;
    for (int token = 0; token < tokens_; ++token) {
      const float* const row = scores + token * experts;
      size_t first = 0;
      for (; first + 64 <= experts; first += 64) {
        uint8_t above[64];
        for (int i = 0; i < 64; ++i) above[i] = row[first + i] >= bars_[first + i];
        uint64_t mask = 0;
        for (int i = 0; i < 8; ++i) {
          uint64_t flags;
          std::memcpy(&flags, above + 8 * i, sizeof(flags));
          mask |= (flags * 0x0102'0408'1020'4080u >> 56) << 8 * i;  // Byte b of the flags to bit b.
        }
        for (; mask != 0; mask &= mask - 1) Add(first + std::countr_zero(mask), row, token);
      }
      for (; first < experts; ++first) {
        if (row[first] >= bars_[first]) Add(first, row, token);
      }
    }
  }
  void Add(size_t expert, const float* row, int token) {
    const int place = count_[expert]++;
    if (place < room_) candidates_[expert * room_ + place] = Key(row[expert], static_cast<uint32_t>(token));
  }

  int tokens_ = 0, experts_ = 0, capacity_ = 0, room_ = 0;
  std::vector<float> bars_;           // [experts]
  std::vector<float> sample_;         // [experts, kSample]
  std::vector<uint64_t> candidates_;  // [experts, room_]
  std::vector<int> count_;            // [experts]: candidates found, whether or not there was room.
  std::vector<uint64_t> all_;         // [tokens]
};

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
    thread_local Workspace work;
    const int capacity = ExpertCapacity(config_.capacity_factor(), request.tokens, shape_.top_k, shape_.experts);
    work.top.Take(request.scores.data(), request.tokens, shape_.experts, capacity);
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
        std::nth_element(work.best.begin(), work.best.begin() + (top_k - 1), work.best.end(), std::greater<>());
        const uint64_t last = work.best[top_k - 1];
        size_t kept = 0;
        for (size_t i = 0; i < count; ++i) {
          if (first[i] >= last) to[kept++] = static_cast<uint16_t>(IndexOfKey(first[i]));
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
