// A tournament between a fixed number of players: the one with the smallest key is known at any time, and giving one
// player a new key replays only its log2(n) matches (Knuth, TAOCP vol. 3, 5.4.1: tree of winners).
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace epsim {

// Keys carry the player in their low 32 bits, so that no two are equal and ties go to the lowest player.
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

 private:
  size_t leaves_ = 1;
  std::vector<uint64_t> keys_ = {kOut, kOut};  // Matches 1 .. leaves - 1, then the players.
};

}  // namespace epsim
