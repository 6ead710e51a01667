#include "traces/workload/row_planes.h"

#include <vector>

#include "engine/random_stream.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

// Every element size that has its own code and some that have not, numbers of rows around the block of 8; bytes after
// each plane's end keep their value.
TEST(RowsToPlanes, PutsEveryElementWhereItsLayerAndTokenSay) {
  RandomStream random(1, "test");
  for (const size_t element : {1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 22}) {
    for (const size_t tokens : {1, 7, 8, 9, 16, 41}) {
      const size_t layers = 5;
      const size_t stride = PlaneStride(tokens, element);
      std::vector<std::vector<std::byte>> rows(tokens);
      std::vector<const std::byte*> addresses;
      for (auto& row : rows) {
        row.resize(layers * element);
        for (std::byte& value : row) value = static_cast<std::byte>(random.Next() & 0x7f);
        addresses.push_back(row.data());
      }
      std::vector<std::byte> planes(layers * stride, std::byte{0xff});
      RowsToPlanes(addresses, layers, element, stride, planes.data());
      for (size_t l = 0; l < layers; ++l) {
        for (size_t at = 0; at < stride; ++at) {
          const std::byte expected =
              at < tokens * element ? rows[at / element][l * element + at % element] : std::byte{0xff};
          ASSERT_EQ(planes[l * stride + at], expected)
              << "element " << element << " tokens " << tokens << " layer " << l << " byte " << at;
        }
      }
    }
  }
}

TEST(PlaneStride, IsAnOddNumberOfLinesThatHoldsThePlane) {
  for (size_t tokens = 0; tokens < 300; ++tokens) {
    const size_t stride = PlaneStride(tokens, 6);
    EXPECT_GE(stride, tokens * 6);
    EXPECT_LE(stride, tokens * 6 + 128);
    EXPECT_EQ(stride % 128, 64u);
  }
  // 8,192 tokens of top-8: 64 KiB would put a token of every layer into the same set of any cache.
  EXPECT_EQ(PlaneStride(8192, 8), 65536u + 64u);
}

}  // namespace
}  // namespace epsim
