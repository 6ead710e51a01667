#include "engine/random_stream.h"

#include <array>
#include <cmath>
#include <cstdint>
#include <set>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;

uint64_t RotateLeft(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

// SplitMix64 as Vigna's splitmix64.c states it: the first outputs for state 1234567 are published with it.
uint64_t SplitMix(uint64_t* x) {
  uint64_t z = (*x += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// xoshiro256** as xoshiro256starstar.c states it.
struct Xoshiro {
  std::array<uint64_t, 4> s;
  uint64_t Next() {
    const uint64_t result = RotateLeft(s[1] * 5, 7) * 9;
    const uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = RotateLeft(s[3], 45);
    return result;
  }
};

TEST(RandomStreamTest, TheReferenceHereIsThePublishedOne) {
  uint64_t state = 1234567;
  EXPECT_EQ(SplitMix(&state), 6457827717110365317u);
  EXPECT_EQ(SplitMix(&state), 3203168211198807973u);
  // xoshiro256** from state {1, 2, 3, 4}: 11520 = rotl(2 * 5, 7) * 9, then 0, 1509978240, 1215971899390074240.
  Xoshiro xoshiro{{1, 2, 3, 4}};
  EXPECT_EQ(xoshiro.Next(), 11520u);
  EXPECT_EQ(xoshiro.Next(), 0u);
  EXPECT_EQ(xoshiro.Next(), 1509978240u);
  EXPECT_EQ(xoshiro.Next(), 1215971899390074240u);
}

// The seeding: one SplitMix64 step of the seed, mixed with the FNV-1a hash of the name, then four words of SplitMix64.
TEST(RandomStreamTest, IsXoshiroSeededBySplitMix) {
  uint64_t mix = 42;
  uint64_t hash = 0xcbf29ce484222325;
  for (unsigned char c : std::string("synthesis")) hash = (hash ^ c) * 0x100000001b3;
  mix = SplitMix(&mix) ^ hash;
  Xoshiro reference;
  for (uint64_t& word : reference.s) word = SplitMix(&mix);
  RandomStream random(42, "synthesis");
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(random.Next(), reference.Next()) << i;
}

// The draws that every recorded experiment depends on.
TEST(RandomStreamTest, DrawsNeverChange) {
  RandomStream random(1, "golden");
  EXPECT_THAT((std::array{random.Next(), random.Next(), random.Next()}),
              ElementsAre(17422620851245314074u, 6416787979149862197u, 2423533719926403214u));
}

TEST(RandomStreamTest, SeedsAndNamesTellStreamsApart) {
  std::set<uint64_t> first;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    for (const char* name : {"a", "b", "ab", "ba", ""}) first.insert(RandomStream(seed, name).Next());
  }
  EXPECT_EQ(first.size(), 50);
  EXPECT_EQ(RandomStream(7, "a").Next(), RandomStream(7, "a").Next());
}

TEST(RandomStreamTest, BelowStaysBelow) {
  RandomStream random(1, "below");
  for (uint64_t bound :
       {uint64_t{1}, uint64_t{2}, uint64_t{3}, uint64_t{1} << 63, (uint64_t{1} << 63) + 1, ~uint64_t{0}}) {
    for (int i = 0; i < 1000; ++i) ASSERT_LT(random.Below(bound), bound);
  }
  EXPECT_EQ(random.Below(1), 0);
}

// 7 cells of 100'000 draws each expected: chi-square with 6 degrees of freedom passes 27.9 once in 10'000 streams.
TEST(RandomStreamTest, BelowIsEven) {
  RandomStream random(1, "even");
  std::vector<int> count(7);
  for (int i = 0; i < 700'000; ++i) ++count[random.Below(7)];
  double chi_square = 0;
  for (int c : count) chi_square += (c - 1e5) * (c - 1e5) / 1e5;
  EXPECT_LT(chi_square, 27.9);
}

// With bound 3 * 2^62 a plain multiplication without rejection hits a third of the values (x = 0 mod 3) twice as often;
// then 1/2 of the draws would be such values rather than 1/3.  Standard deviation of the share: 0.0015.
TEST(RandomStreamTest, BelowIsUnbiasedForLargeBounds) {
  RandomStream random(1, "large");
  int multiples = 0;
  for (int i = 0; i < 100'000; ++i) multiples += random.Below(3 * (uint64_t{1} << 62)) % 3 == 0;
  EXPECT_NEAR(multiples / 1e5, 1.0 / 3, 0.0075);
}

// A uniform variable has mean 1/2 and variance 1/12; the mean of 1e6 draws has standard deviation 0.00029.
TEST(RandomStreamTest, UnitIsUniformInItsInterval) {
  RandomStream random(1, "unit");
  double sum = 0, squares = 0;
  for (int i = 0; i < 1'000'000; ++i) {
    const double u = random.Unit();
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    ASSERT_EQ(u * 0x1p53, std::floor(u * 0x1p53));
    sum += u;
    squares += u * u;
  }
  EXPECT_NEAR(sum / 1e6, 0.5, 0.0015);
  EXPECT_NEAR(squares / 1e6, 1.0 / 3, 0.0015);
}

TEST(RandomStreamDeathTest, BelowNothing) {
  RandomStream random(1, "none");
  EXPECT_DEATH(random.Below(0), "bound > 0");
}

}  // namespace
}  // namespace epsim
