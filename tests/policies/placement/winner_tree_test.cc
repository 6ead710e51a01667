#include "policies/placement/winner_tree.h"

#include <algorithm>

#include "engine/random_stream.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

TEST(WinnerTree, KnowsTheSmallestKeyAfterEveryReplay) {
  RandomStream random(1, "winner_tree_test");
  WinnerTree tree;
  for (size_t players : {1, 2, 3, 31, 32, 33, 256, 5}) {  // Powers of two, not, and a smaller one after a larger.
    tree.Reset(players);
    EXPECT_EQ(tree.best(), WinnerTree::kOut);
    std::vector<uint64_t> keys(players);
    for (size_t player = 0; player < players; ++player) {
      keys[player] = random.Below(8) << 32 | player;  // Many ties: the lowest player wins them.
      tree.Set(player, keys[player]);
    }
    tree.PlayAll();
    for (int round = 0; round < 200; ++round) {
      std::vector<uint64_t> in_order = keys;
      in_order.push_back(WinnerTree::kOut);
      std::sort(in_order.begin(), in_order.end());
      ASSERT_EQ(tree.best(), in_order[0]) << players << " players";
      if (tree.best() != WinnerTree::kOut) {
        ASSERT_EQ(tree.second(), in_order[1]) << players << " players";
      }
      const size_t player = random.Below(players);
      keys[player] = random.Below(10) == 0 ? WinnerTree::kOut : random.Below(8) << 32 | player;
      tree.Replay(player, keys[player]);
    }
  }
}

}  // namespace
}  // namespace epsim
