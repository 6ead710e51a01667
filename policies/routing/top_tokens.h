// What experts take when they choose: each its best tokens, of a matrix of scores that is read in the order of tokens.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

namespace epsim {

// Orders as the float does; -0 is 0.
inline uint32_t OrderedScore(float score) {
  const uint32_t bits = std::bit_cast<uint32_t>(score + 0.0f);
  return bits & 0x8000'0000u ? ~bits : bits | 0x8000'0000u;
}
// Of a greater key the score is higher or, where it is equal, `index` lower.
inline uint64_t ScoreKey(float score, uint32_t index) {
  return uint64_t{OrderedScore(score)} << 32 | (0xffff'ffffu - index);
}
inline uint32_t IndexOfKey(uint64_t key) { return 0xffff'ffffu - static_cast<uint32_t>(key); }

// Moves the `count` greatest of [first, last) to the front, in no particular order.  A quickselect whose partition does
// not branch on what it compares: on drawn scores every second guess of such a branch is wrong.
template <typename T>
void GreatestFirst(T* first, T* last, size_t count) {
  if (count >= static_cast<size_t>(last - first)) return;
  for (int round = 0; round < 32 && last - first > 8; ++round) {
    const T a = *first, b = first[(last - first) / 2], c = last[-1];
    const T pivot = std::max(std::min(a, b), std::min(std::max(a, b), c));  // The middle one.
    T* cut = first;
    for (T* place = first; place != last; ++place) {
      const T value = *place;
      *place = *cut;
      *cut = value;
      cut += value > pivot;
    }
    const size_t greater = static_cast<size_t>(cut - first);
    if (greater == count) return;
    if (greater == 0) break;  // Many are equal.
    if (greater > count) {
      last = cut;
    } else {
      first = cut;
      count -= greater;
    }
  }
  if (count > 0) std::nth_element(first, first + (count - 1), last, std::greater<>());
}

// What each expert takes of the tokens of one source rank.  What goes over all scores is inlined into the caller, so
// that it is compiled for the caller's instruction set.
class TopTokens {
 public:
  // `scores` [tokens, experts], the rows `stride` apart.  No score is NaN.
  [[gnu::always_inline]] inline void Take(const float* scores, int stride, int tokens, int experts, int capacity) {
    stride_ = stride, tokens_ = tokens, experts_ = experts, capacity_ = capacity;
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
        all_[token] = ScoreKey(scores[static_cast<size_t>(token) * stride_ + expert], static_cast<uint32_t>(token));
      }
      GreatestFirst(all_.data(), all_.data() + tokens, capacity);
      std::copy_n(all_.data(), capacity, own);
    }
  }
  // Keys of the tokens that `expert` takes.  [capacity]
  const uint64_t* of(int expert) const { return &candidates_[static_cast<size_t>(expert) * room_]; }

 private:
  static constexpr int kSample = 256;
  static constexpr int kSampleRoom = kSample + 16;  // As room_: an odd number of lines.

  // Only tokens at or above an expert's bar are candidates.  It is set by a sample of tokens, at three standard
  // deviations more than the sample's part of the capacity, so that nearly always the bar is below the last that the
  // expert takes: what is taken does not depend on it.
  void SetBars(const float* scores) {
    const size_t experts = experts_;
    bars_.assign(experts, -std::numeric_limits<float>::infinity());
    int room = tokens_;
    const int step = tokens_ / kSample;
    const double expected = static_cast<double>(capacity_) / std::max(1, step);
    const int place = static_cast<int>(expected + 3 * std::sqrt(expected)) + 2;
    if (step >= 2 && place < kSample) {
      room = std::min(tokens_, 2 * place * step);
      sample_.resize(experts * kSampleRoom);
      for (int i = 0; i < kSample; ++i) {
        const float* const row = scores + static_cast<size_t>(i) * step * stride_;
        float* const to = sample_.data() + i;
        for (size_t expert = 0; expert < experts; ++expert) to[expert * kSampleRoom] = row[expert];
      }
      for (size_t expert = 0; expert < experts; ++expert) {
        float* const sample = &sample_[expert * kSampleRoom];
        GreatestFirst(sample, sample + kSample, static_cast<size_t>(place));
        bars_[expert] = *std::min_element(sample, sample + place);
      }
    }
    // An odd number of 64-byte lines, so that the experts' candidates do not fall into one set of the cache.
    room_ = ((room + 7) / 8 | 1) * 8;
    candidates_.resize(experts * room_);
    count_.assign(experts, 0);
  }

  [[gnu::always_inline]] inline void Collect(const float* scores) {
    const size_t experts = experts_, room = room_;
    const float* const bars = bars_.data();
    uint64_t* const candidates = candidates_.data();
    int* const count = count_.data();
    for (int token = 0; token < tokens_; ++token) {
      const float* const row = scores + static_cast<size_t>(token) * stride_;
      const auto add = [&](size_t expert) {
        const size_t place = static_cast<size_t>(count[expert]++);
        if (place < room) candidates[expert * room + place] = ScoreKey(row[expert], static_cast<uint32_t>(token));
      };
      size_t first = 0;
      for (; first + 64 <= experts; first += 64) {
        uint8_t above[64];
        for (int i = 0; i < 64; ++i) above[i] = row[first + i] >= bars[first + i];
        uint64_t mask = 0;
        for (int i = 0; i < 8; ++i) {
          uint64_t flags;
          std::memcpy(&flags, above + 8 * i, sizeof(flags));
          mask |= (flags * 0x0102'0408'1020'4080u >> 56) << 8 * i;  // Byte b of the flags to bit b.
        }
        for (; mask != 0; mask &= mask - 1) add(first + static_cast<size_t>(std::countr_zero(mask)));
      }
      for (; first < experts; ++first) {
        if (row[first] >= bars[first]) add(first);
      }
    }
  }

  size_t stride_ = 0;
  int tokens_ = 0, experts_ = 0, capacity_ = 0, room_ = 0;
  std::vector<float> bars_;           // [experts]
  std::vector<float> sample_;         // [experts, kSampleRoom]
  std::vector<uint64_t> candidates_;  // [experts, room_]
  std::vector<int> count_;            // [experts]: candidates found, whether or not there was room.
  std::vector<uint64_t> all_;         // [tokens]
};

}  // namespace epsim
