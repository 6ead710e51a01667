// The SwiGLU kernel on the emulated GPU against its twin, bit for bit.
#include <cstdint>
#include <vector>

#include "engine/random_stream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/kernels/expert_mlp.h"
#include "tests/models/kernels/cuda_on_cpu.h"
//
#include "models/kernels/swiglu.cuh"

namespace epsim {
namespace {

using ::testing::ElementsAreArray;

std::vector<uint16_t> DrawGateUp(int64_t rows, int64_t inter) {
  RandomStream random(1, "gate up");
  std::vector<uint16_t> values(static_cast<size_t>(rows * 2 * inter));
  for (uint16_t& value : values) value = Bf16Of(static_cast<float>(8 * random.Unit() - 4));
  return values;
}

// A grid ends within a block, and a row within 128 values.
TEST(SwigluKernel, GivesTheBitsOfItsTwinInBf16) {
  for (const int64_t inter : {16, 128, 272, 1040}) {
    constexpr int64_t kRows = 7;
    const std::vector<uint16_t> gate_up = DrawGateUp(kRows, inter);
    std::vector<uint16_t> expected(static_cast<size_t>(kRows * inter)), out(expected.size(), 0x7fc1);
    for (int64_t row = 0; row < kRows; ++row) {
      const uint16_t* gate = gate_up.data() + row * 2 * inter;
      SwigluToBf16(gate, gate + inter, static_cast<int>(inter), expected.data() + row * inter);
    }
    ASSERT_TRUE(
        EnqueueSwiglu(CpuStream(), {.gate_up = gate_up.data(), .rows = kRows, .inter = inter, .out = out.data()}).ok());
    EXPECT_THAT(out, ElementsAreArray(expected)) << inter;
  }
}

TEST(SwigluKernel, GivesTheBitsAndScalesOfItsTwinInFp8) {
  for (const int64_t inter : {128, 384}) {
    const ExpertMlpLayout layout({.hidden = 128, .inter = inter, .values = FP8, .tokens_per_slot = {3, 0, 17}});
    std::vector<uint16_t> gate_up = DrawGateUp(layout.rows(), inter);
    for (int i = 0; i < 128; ++i) gate_up[static_cast<size_t>(i)] = 0;  // A block of zeros.
    std::vector<ScalePlace> places;
    std::vector<uint8_t> expected(static_cast<size_t>(layout.rows() * inter)), out(expected.size(), 0x7f);
    std::vector<float> expected_scales(static_cast<size_t>(layout.row_scales(inter))),
        scales(expected_scales.size(), -1);
    for (int64_t slot = 0; slot < layout.slots(); ++slot) {
      for (int64_t row = 0; row < layout.padded_rows(slot); ++row) {
        places.push_back({layout.RowScale(slot, row, 0, inter), layout.padded_rows(slot)});
        const int64_t place = layout.row_begin(slot) + row;
        for (int64_t first = 0; first < inter; first += kScaleBlock) {
          const uint16_t* gate = gate_up.data() + place * 2 * inter + first;
          expected_scales[static_cast<size_t>(layout.RowScale(slot, row, first / kScaleBlock, inter))] =
              SwigluToFp8(gate, gate + inter, kScaleBlock, expected.data() + place * inter + first);
        }
      }
    }
    ASSERT_TRUE(EnqueueSwiglu(CpuStream(), {.gate_up = gate_up.data(),
                                            .rows = layout.rows(),
                                            .inter = inter,
                                            .places = places.data(),
                                            .out = out.data(),
                                            .scales = scales.data()})
                    .ok());
    EXPECT_THAT(out, ElementsAreArray(expected)) << inter;
    EXPECT_THAT(scales, ElementsAreArray(expected_scales)) << inter;
  }
}

}  // namespace
}  // namespace epsim
