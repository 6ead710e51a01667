// A tournament between a fixed number of players: the one with the smallest key is known at any time, and giving one
// player a new key replays only its log2(n) matches (Knuth, TAOCP vol. 3, 5.4.1: tree of winners).
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace epsim {

// Keys carry the player in their low 32 bits, so that no two are equal and ties go to the lowest player.  These are
// keys by weight: weights are finite and >= 0 (no -0), so the bits of a float32 order as its value.
inline uint64_t LightestFirst(float weight, size_t player) {
  return uint64_t{std::bit_cast<uint32_t>(weight)} << 32 | player;
}
inline uint64_t HeaviestFirst(float weight, size_t player) {
  return uint64_t{~std::bit_cast<uint32_t>(weight)} << 32 | player;
}
inline size_t PlayerOf(uint64_t key) { return static_cast<uint32_t>(key); }

class WinnerTree {
 public:
  // A player with this key never wins while another one plays.
  static constexpr uint64_t kOut = ~uint64_t{0};

  // Starts a tournament of `players`, all out.  REQUIRES: players > 0.  Keeps its memory from one to the next.
  void Reset(size_t players) {
    leaves_ = std::bit_ceil(players);
    keys_.assign(2 * leaves_, kOut);
  }

  // Gives every player its key at once: Set(player, key) for some, then PlayAll().
  void Set(size_t player, uint64_t key) { keys_[leaves_ + player] = key; }
  void PlayAll() {
    for (size_t match = leaves_ - 1; match > 0; --match) {
      keys_[match] = std::min(keys_[2 * match], keys_[2 * match + 1]);
    }
  }

  // Gives one player a new key.
  void Replay(size_t player, uint64_t key) {
    size_t place = leaves_ + player;
    keys_[place] = key;
    while (place > 1) {
      key = std::min(key, keys_[place ^ 1]);
      place >>= 1;
      keys_[place] = key;
    }
  }

  // The smallest key.
  uint64_t best() const { return keys_[1]; }
  // The smallest but one: the winner's best opponent.  REQUIRES: best() is not kOut.
  uint64_t second() const {
    uint64_t second = kOut;
    for (size_t place = leaves_ + PlayerOf(keys_[1]); place > 1; place >>= 1) {
      second = std::min(second, keys_[place ^ 1]);
    }
    return second;
  }

 private:
  size_t leaves_ = 1;
  std::vector<uint64_t> keys_ = {kOut, kOut};  // Matches 1 .. leaves - 1, then the players.
};

}  // namespace epsim
