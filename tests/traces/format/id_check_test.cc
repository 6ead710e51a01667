// The vectorised check of ids against the obvious one, for every top_k and every place a fault can be in.
#include "traces/format/id_check.h"

#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "engine/random_stream.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

// Rows of distinct random ids below `experts`.
std::vector<int> SoundRows(int rows, int top_k, int experts, RandomStream& random) {
  std::vector<int> ids;
  for (int row = 0; row < rows; ++row) {
    std::set<int> taken;
    while (static_cast<int>(taken.size()) < top_k) {
      const int id = static_cast<int>(random.Below(static_cast<uint64_t>(experts)));
      if (taken.insert(id).second) ids.push_back(id);
    }
  }
  return ids;
}

std::vector<std::byte> Packed(const std::vector<int>& ids, int id_bytes) {
  std::vector<std::byte> bytes(ids.size() * static_cast<size_t>(id_bytes));
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto id = static_cast<uint16_t>(ids[i]);
    std::memcpy(bytes.data() + i * static_cast<size_t>(id_bytes), &id, static_cast<size_t>(id_bytes));
  }
  return bytes;
}

TEST(IdCheckTest, FindsEveryFaultInEveryPlace) {
  RandomStream random(1, "ids");
  for (const int id_bytes : {1, 2}) {
    for (const int top_k : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 22, 32, 33, 64, 200}) {
      // 256 and 65,536 leave no id out of range in their width.
      for (const int experts : {top_k, 250, id_bytes == 1 ? 256 : 65536}) {
        for (const int rows : {1, 31, 67, 101}) {
          const std::vector<int> sound = SoundRows(rows, top_k, experts, random);
          ASSERT_TRUE(IdsAreSound(Packed(sound, id_bytes).data(), id_bytes, rows, top_k, experts))
              << id_bytes << " " << top_k << " " << experts << " " << rows;
          for (int trial = 0; trial < 40; ++trial) {
            std::vector<int> faulty = sound;
            const auto row = static_cast<int>(random.Below(static_cast<uint64_t>(rows)));
            const auto k = static_cast<int>(random.Below(static_cast<uint64_t>(top_k)));
            int& id = faulty[static_cast<size_t>(row * top_k + k)];
            const bool repeat = top_k > 1 && (experts == (id_bytes == 1 ? 256 : 65536) || trial % 2 == 0);
            if (!repeat && experts == (id_bytes == 1 ? 256 : 65536)) continue;
            const int other =
                (k + 1 + static_cast<int>(random.Below(static_cast<uint64_t>(top_k > 1 ? top_k - 1 : 1)))) % top_k;
            id = repeat ? faulty[static_cast<size_t>(row * top_k + other)] : experts;
            const std::vector<std::byte> bytes = Packed(faulty, id_bytes);
            ASSERT_FALSE(IdsAreSound(bytes.data(), id_bytes, rows, top_k, experts))
                << id_bytes << " " << top_k << " " << experts << " row " << row << " of " << rows << " k " << k << " "
                << other << (repeat ? " repeated" : " out of range");
            int found = 0;
            bool repeated = false;
            ASSERT_EQ(FirstUnsoundRow(bytes.data(), id_bytes, rows, top_k, experts, nullptr, &found, &repeated), row);
            ASSERT_EQ(found, id);
            ASSERT_EQ(repeated, repeat);
          }
        }
      }
    }
  }
}

// Every pair of places in a row of eight, in each of the rows that one vector holds.
TEST(IdCheckTest, FindsEveryRepetitionInATopEightOfBytes) {
  for (int row = 0; row < 9; ++row) {
    for (int a = 0; a < 8; ++a) {
      for (int b = 0; b < 8; ++b) {
        std::vector<int> ids;
        for (int i = 0; i < 72; ++i) ids.push_back(i % 8);
        ids[static_cast<size_t>(row * 8 + a)] = ids[static_cast<size_t>(row * 8 + b)];
        EXPECT_EQ(IdsAreSound(Packed(ids, 1).data(), 1, 9, 8, 8), a == b) << row << " " << a << " " << b;
      }
    }
  }
}

TEST(IdCheckTest, OnlyValidIdsNeedBeDistinct) {
  const std::vector<std::byte> bytes = Packed({1, 2, 0, 0, 3, 4, 5, 3}, 1);
  int id = 0;
  bool repeated = false;
  const uint8_t some[] = {2, 3}, all[] = {2, 4};
  EXPECT_EQ(FirstUnsoundRow(bytes.data(), 1, 2, 4, 8, some, &id, &repeated), -1);
  EXPECT_EQ(FirstUnsoundRow(bytes.data(), 1, 2, 4, 8, all, &id, &repeated), 1);
  EXPECT_EQ(id, 3);
  EXPECT_TRUE(repeated);
}

}  // namespace
}  // namespace epsim
