#include "models/kernels/expert_mlp.h"

#include <tbb/parallel_for.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "models/kernels/fp8.h"
#include "models/kernels/row_products.h"
#include "models/kernels/swiglu.h"

namespace epsim {
namespace {

constexpr int64_t kRowPadding = 16;
constexpr int64_t kLargest = int64_t{1} << 30;

constexpr int64_t kTileWeightRows = 64;  // Of the product, by one task.
constexpr int64_t kTileTokens = 64;
constexpr int64_t kTileValues = 512;  // A whole number of blocks of scales.
constexpr int64_t kFewTokens = 8;     // That stay in the cache with all their values while the weights stream by.

// Rows of activations or weights, and their scales; 1 for BF16.
struct NarrowRows {
  const void* values;
  NumberType type;
  const float* scales;  // Null for BF16.
};

// y = x w' of one slot, x decoded.
struct Product {
  const float* x;         // [tokens, k]
  const float* x_scales;  // [tokens, blocks]
  NarrowRows w;           // [n, k], scales [n / 128, scale_stride]
  int64_t tokens, n, k;
  uint16_t* y;  // [tokens, n]
};

int64_t Blocks(int64_t values) { return (values + kScaleBlock - 1) / kScaleBlock; }

// Weight rows [begin, end) of the product against the tokens [token_begin, token_end).
void MultiplyTile(const Product& product, const RowProducts& kernel, int64_t begin, int64_t end, int64_t token_begin,
                  int64_t token_end) {
  constexpr int64_t kPair = RowProducts::kWeightRows, kQuad = RowProducts::kTokens;
  const int64_t k = product.k, blocks = Blocks(k), quads = (token_end - token_begin + kQuad - 1) / kQuad;
  thread_local std::vector<float> sums, weights, ones;
  sums.assign(static_cast<size_t>((end - begin) * quads * kQuad), 0);
  weights.resize(static_cast<size_t>(kPair * kTileValues));
  ones.assign(static_cast<size_t>(blocks), 1);

  const auto multiply = [&](int64_t row, int64_t first, int64_t count) {
    for (int64_t r = 0; r < kPair; ++r) {
      float* decoded = weights.data() + r * count;
      const int64_t place = (row + r) * k + first;
      if (product.w.type == FP8) {
        kernel.decode_fp8(static_cast<const uint8_t*>(product.w.values) + place, count, decoded);
      } else {
        kernel.decode_bf16(static_cast<const uint16_t*>(product.w.values) + place, count, decoded);
      }
    }
    const float* weight_scales = ones.data();
    if (product.w.scales != nullptr) {
      weight_scales = product.w.scales + row / kScaleBlock * WeightScaleStride(k) + first / kScaleBlock;
    }
    float* sum = sums.data() + (row - begin) * quads * kQuad;
    for (int64_t token = token_begin; token < token_end; token += kQuad, sum += kPair * kQuad) {
      kernel.add_tile({.weights = weights.data(),
                       .tokens = product.x + token * k + first,
                       .token_stride = k,
                       .token_count = static_cast<int>(std::min(kQuad, token_end - token)),
                       .weight_scales = weight_scales,
                       .token_scales = product.x_scales + token * blocks + first / kScaleBlock,
                       .weight_scale_stride = 0,  // Two rows from an even one on are in one block.
                       .token_scale_stride = blocks,
                       .count = count},
                      sum);
    }
  };
  const auto values_from = [&](int64_t first) { return std::min(kTileValues, k - first); };
  if (token_end - token_begin <= kFewTokens) {
    for (int64_t row = begin; row < end; row += kPair) {
      for (int64_t first = 0; first < k; first += kTileValues) multiply(row, first, values_from(first));
    }
  } else {
    for (int64_t first = 0; first < k; first += kTileValues) {
      for (int64_t row = begin; row < end; row += kPair) multiply(row, first, values_from(first));
    }
  }

  for (int64_t row = begin; row < end; ++row) {
    const float* pair = sums.data() + (row - begin) / kPair * kPair * quads * kQuad + (row - begin) % kPair * kQuad;
    for (int64_t token = token_begin; token < token_end; ++token) {
      const int64_t place = token - token_begin;
      product.y[token * product.n + row] = Bf16Of(pair[place / kQuad * kPair * kQuad + place % kQuad]);
    }
  }
}

void Multiply(const Product& product) {
  const RowProducts& kernel = FastestRowProducts();
  const int64_t row_tiles = (product.n + kTileWeightRows - 1) / kTileWeightRows;
  const int64_t token_tiles = (product.tokens + kTileTokens - 1) / kTileTokens;
  tbb::parallel_for(int64_t{0}, row_tiles * token_tiles, [&](int64_t tile) {
    const int64_t row = tile / token_tiles * kTileWeightRows, token = tile % token_tiles * kTileTokens;
    MultiplyTile(product, kernel, row, std::min(row + kTileWeightRows, product.n), token,
                 std::min(token + kTileTokens, product.tokens));
  });
}

// The rows of one slot as float32, and the scales of each row's blocks.
class SlotRows {
 public:
  void Decode(const ExpertMlpLayout& layout, int64_t slot, int64_t tokens, int64_t values, const NarrowRows& rows) {
    const RowProducts& kernel = FastestRowProducts();
    const int64_t blocks = Blocks(values), begin = layout.row_begin(slot);
    values_.resize(static_cast<size_t>(tokens * values));
    scales_.assign(static_cast<size_t>(tokens * blocks), 1);
    tbb::parallel_for(int64_t{0}, tokens, [&](int64_t token) {
      const int64_t place = (begin + token) * values;
      float* decoded = values_.data() + token * values;
      if (rows.type == FP8) {
        kernel.decode_fp8(static_cast<const uint8_t*>(rows.values) + place, values, decoded);
        for (int64_t block = 0; block < blocks; ++block) {
          scales_[static_cast<size_t>(token * blocks + block)] =
              rows.scales[layout.RowScale(slot, token, block, values)];
        }
      } else {
        kernel.decode_bf16(static_cast<const uint16_t*>(rows.values) + place, values, decoded);
      }
    });
  }
  const float* values() const { return values_.data(); }
  const float* scales() const { return scales_.data(); }

 private:
  std::vector<float> values_;  // [tokens, values]
  std::vector<float> scales_;  // [tokens, blocks]
};

// Slot `slot` of matrices [slots, rows, columns].
NarrowRows WeightsOfSlot(const void* values, const float* scales, NumberType type, int64_t slot, int64_t rows,
                         int64_t columns) {
  const int64_t width = type == FP8 ? 1 : 2;
  return {.values = static_cast<const uint8_t*>(values) + slot * rows * columns * width,
          .type = type,
          .scales = type == FP8 ? scales + slot * WeightScales(rows, columns) : nullptr};
}

}  // namespace

absl::Status CheckExpertMlp(const ExpertMlpShape& shape) {
  if (shape.values != BF16 && shape.values != FP8) {
    return absl::UnimplementedError(
        absl::StrCat("an expert MLP in ", NumberType_Name(shape.values), ": there are kernels for BF16 and FP8"));
  }
  const int64_t multiple = shape.values == FP8 ? kScaleBlock : 16;
  for (const auto& [name, value] : {std::pair("hidden", shape.hidden), std::pair("inter", shape.inter)}) {
    if (value <= 0 || value % multiple != 0 || value > kLargest) {
      return absl::InvalidArgumentError(absl::StrCat(name, ": ", value, " is no positive multiple of ", multiple,
                                                     shape.values == FP8 ? ", the block of scales" : ""));
    }
  }
  int64_t tokens = 0;
  for (size_t slot = 0; slot < shape.tokens_per_slot.size(); ++slot) {
    if (shape.tokens_per_slot[slot] < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokens_per_slot[", slot, "]: ", shape.tokens_per_slot[slot], " tokens"));
    }
    tokens += shape.tokens_per_slot[slot];
  }
  if (tokens == 0) return absl::InvalidArgumentError("tokens_per_slot: there are no tokens");
  if (tokens > kLargest) return absl::InvalidArgumentError(absl::StrCat("tokens_per_slot: ", tokens, " tokens"));
  return absl::OkStatus();
}

ExpertMlpLayout::ExpertMlpLayout(const ExpertMlpShape& shape) {
  const int64_t padding = shape.values == FP8 ? kRowPadding : 1;
  row_begin_.push_back(0);
  for (const int tokens : shape.tokens_per_slot) {
    row_begin_.push_back(row_begin_.back() + (tokens + padding - 1) / padding * padding);
  }
}

void ExpertMlpOnCpu(const ExpertMlpShape& shape, const ExpertMlpInputs& inputs, uint16_t* y) {
  EPSIM_CHECK(CheckExpertMlp(shape).ok());
  const ExpertMlpLayout layout(shape);
  const int64_t hidden = shape.hidden, inter = shape.inter;
  SlotRows x, a;
  std::vector<uint16_t> h, bf16;
  std::vector<uint8_t> fp8;
  std::vector<float> scales(static_cast<size_t>(shape.values == FP8 ? layout.row_scales(inter) : 0));
  bf16.resize(static_cast<size_t>(shape.values == BF16 ? layout.rows() * inter : 0));
  fp8.resize(static_cast<size_t>(shape.values == FP8 ? layout.rows() * inter : 0));
  for (int64_t slot = 0; slot < layout.slots(); ++slot) {
    const int64_t tokens = shape.tokens_per_slot[static_cast<size_t>(slot)], begin = layout.row_begin(slot);
    if (tokens == 0) continue;
    x.Decode(layout, slot, tokens, hidden, {inputs.x, shape.values, inputs.x_scales});
    h.resize(static_cast<size_t>(tokens * 2 * inter));
    Multiply({.x = x.values(),
              .x_scales = x.scales(),
              .w = WeightsOfSlot(inputs.gate_up, inputs.gate_up_scales, shape.values, slot, 2 * inter, hidden),
              .tokens = tokens,
              .n = 2 * inter,
              .k = hidden,
              .y = h.data()});
    tbb::parallel_for(int64_t{0}, tokens, [&](int64_t token) {
      const uint16_t* gate = h.data() + token * 2 * inter;
      for (int64_t first = 0; first < inter; first += kScaleBlock) {
        const int count = static_cast<int>(std::min(kScaleBlock, inter - first));
        const int64_t place = (begin + token) * inter + first;
        if (shape.values == FP8) {
          scales[static_cast<size_t>(layout.RowScale(slot, token, first / kScaleBlock, inter))] =
              SwigluToFp8(gate + first, gate + inter + first, count, fp8.data() + place);
        } else {
          SwigluToBf16(gate + first, gate + inter + first, count, bf16.data() + place);
        }
      }
    });
    const void* activations = shape.values == FP8 ? static_cast<const void*>(fp8.data()) : bf16.data();
    a.Decode(layout, slot, tokens, inter, {activations, shape.values, scales.data()});
    Multiply({.x = a.values(),
              .x_scales = a.scales(),
              .w = WeightsOfSlot(inputs.down, inputs.down_scales, shape.values, slot, hidden, inter),
              .tokens = tokens,
              .n = hidden,
              .k = inter,
              .y = y + begin * hidden});
  }
}

}  // namespace epsim
