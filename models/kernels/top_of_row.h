// The greatest of a row of up to 512 floats, on the CPU: what the twins of the router and of expert choice do for each
// token.  Everything is inlined into its caller, so that it is compiled for the caller's instruction set.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "models/kernels/exact_float.h"

namespace epsim {

// A value is `kNever`, out of the question, or ordered as OrderedBits() is; of equal values the lower place is greater.
struct TopOfRow {
  static constexpr int kMost = 512;
  static constexpr int32_t kNever = std::numeric_limits<int32_t>::min();

  EPSIM_HOST_DEVICE static int32_t Key(float x) { return static_cast<int32_t>(OrderedBits(x) ^ 0x8000'0000u); }
  EPSIM_HOST_DEVICE static float FloatOfKey(int32_t key) {
    return FloatOfOrdered(static_cast<uint32_t>(key) ^ 0x8000'0000u);
  }

  // The keys of row[0, n), and kNever behind them.
  EPSIM_HOST_DEVICE void SetKeys(const float* row, int n) {
    for (int i = 0; i < n; ++i) key[i] = Key(row[i]);
    std::fill(key + n, key + (n + 63) / 64 * 64, kNever);
  }

  // Of the n keys.
  EPSIM_HOST_DEVICE int32_t Greatest(int n) const {
    alignas(64) int32_t most[32];
    for (int l = 0; l < 32; ++l) most[l] = kNever;
    for (int i = 0; i < (n + 63) / 64 * 64; i += 32) {
      for (int l = 0; l < 32; ++l) most[l] = std::max(most[l], key[i + l]);
    }
    for (int l = 0; l < 16; ++l) most[l] = std::max(most[l], most[l + 16]);
    for (int l = 0; l < 8; ++l) most[l] = std::max(most[l], most[l + 8]);
    for (int l = 1; l < 8; ++l) most[0] = std::max(most[0], most[l]);
    return most[0];
  }

  // top[i], i < count: the place of the i-th greatest key, from the greatest.  REQUIRES: 1 <= count <= 32, at least
  // `count` of the n keys are not kNever.
  //
  // The keys are dealt to L >= count lanes; the smallest of the lanes' greatest is a bar that at least L keys reach,
  // and few more.  Each of these counts how many are greater: that is its place, without a branch on what it compares.
  EPSIM_HOST_DEVICE void Select(int n, int count, int32_t* top) {
    const int end = (n + 63) / 64 * 64;
    alignas(64) int32_t most[32];
    std::fill(most, most + 32, kNever);
    for (int i = 0; i < end; i += 32) {
      for (int l = 0; l < 32; ++l) most[l] = std::max(most[l], key[i + l]);
    }
    int lanes = 32;
    for (; lanes / 2 >= count && lanes > 8; lanes /= 2) {
      for (int l = 0; l < lanes / 2; ++l) most[l] = std::max(most[l], most[l + lanes / 2]);
    }
    int32_t bar = most[0];
    for (int l = 1; l < lanes; ++l) bar = std::min(bar, most[l]);
    bar = std::max(bar, kNever + 1);

    alignas(64) int32_t reached[kRoom], place[kRoom];
    int found = 0;
    for (int i = 0; i < end; i += 64) {
      uint8_t reaches[64];
      for (int j = 0; j < 64; ++j) reaches[j] = key[i + j] >= bar;
      uint64_t mask = 0;
      for (int j = 0; j < 8; ++j) {
        uint64_t flags;
        std::memcpy(&flags, reaches + 8 * j, sizeof(flags));
        mask |= (flags * 0x0102'0408'1020'4080u >> 56) << 8 * j;  // Byte b of the flags to bit b.
      }
      if (found + std::popcount(mask) > kRoom) return SelectOfMany(n, count, top);
      for (; mask != 0; mask &= mask - 1) {
        place[found] = i + std::countr_zero(mask);
        reached[found] = key[place[found]];
        ++found;
      }
    }
    if (found <= 24) {
      PlaceByCount<24>(reached, place, found, count, top);
    } else {
      PlaceByCount<kRoom>(reached, place, found, count, top);
    }
  }

  alignas(64) int32_t key[kMost];

 private:
  static constexpr int kRoom = 64;

  template <int kPadded>
  EPSIM_HOST_DEVICE static void PlaceByCount(int32_t* reached, const int32_t* place, int found, int count,
                                             int32_t* top) {
    for (int i = found; i < kPadded; ++i) reached[i] = kNever;
    alignas(64) int32_t greater[kPadded], ordered[kPadded];
    for (int i = 0; i < kPadded; ++i) greater[i] = 0;
    for (int j = 0; j < found; ++j) {
      const int32_t other = reached[j];  // No key is so great that 1 cannot be added.
      for (int i = 0; i < kPadded; ++i) greater[i] += other + (j < i ? 1 : 0) > reached[i] ? 1 : 0;
    }
    for (int i = 0; i < found; ++i) ordered[greater[i]] = place[i];
    for (int i = 0; i < count; ++i) top[i] = ordered[i];
  }

  // Where many are equal.
  void SelectOfMany(int n, int count, int32_t* top) {
    int32_t best[32];
    int found = 0;
    for (int i = 0; i < n; ++i) {
      if (key[i] == kNever || (found == count && key[i] <= best[found - 1])) continue;
      int at = found < count ? found++ : found - 1;
      for (; at > 0 && best[at - 1] < key[i]; --at) best[at] = best[at - 1], top[at] = top[at - 1];
      best[at] = key[i], top[at] = i;
    }
  }
};

}  // namespace epsim
