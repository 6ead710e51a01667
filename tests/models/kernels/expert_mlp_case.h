// An expert MLP with random inputs in host memory, and what it must give: computed one value after another in float64.
#pragma once

#include <cmath>
#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/random_stream.h"
#include "models/kernels/expert_mlp.h"
#include "models/kernels/fp8.h"
#include "models/kernels/swiglu.h"

namespace epsim::expert_mlp_case {

// [rows, columns] in BF16 or FP8, with room for scales.
struct Narrow {
  std::vector<uint16_t> bf16;
  std::vector<uint8_t> fp8;
  std::vector<float> scales;
  const void* data() const { return fp8.empty() ? static_cast<const void*>(bf16.data()) : fp8.data(); }
  const float* scale_data() const { return scales.empty() ? nullptr : scales.data(); }
};

struct Case {
  ExpertMlpShape shape;
  ExpertMlpLayout layout;
  Narrow x, gate_up, down;

  ExpertMlpInputs inputs() const {
    return {.x = x.data(),
            .gate_up = gate_up.data(),
            .down = down.data(),
            .x_scales = x.scale_data(),
            .gate_up_scales = gate_up.scale_data(),
            .down_scales = down.scale_data()};
  }
};

// Values that stand for numbers of about -amplitude to amplitude.
inline Narrow DrawNarrow(NumberType type, int64_t count, int64_t scales, double amplitude, RandomStream* random) {
  Narrow narrow;
  const auto draw = [&](double largest) { return static_cast<float>((2 * random->Unit() - 1) * largest); };
  if (type == FP8) {
    narrow.fp8.resize(static_cast<size_t>(count));
    for (uint8_t& bits : narrow.fp8) bits = Fp8Of(draw(kLargestFp8));
    narrow.scales.resize(static_cast<size_t>(scales));
    for (float& scale : narrow.scales) {
      scale = static_cast<float>((0.5 + random->Unit()) * amplitude / static_cast<double>(kLargestFp8));
    }
  } else {
    narrow.bf16.resize(static_cast<size_t>(count));
    for (uint16_t& bits : narrow.bf16) bits = Bf16Of(draw(amplitude));
  }
  return narrow;
}

// REQUIRES: CheckExpertMlp(shape).ok().
inline Case DrawCase(const ExpertMlpShape& shape, std::string_view name) {
  RandomStream random(1, name);
  const ExpertMlpLayout layout(shape);
  const int64_t slots = layout.slots(), hidden = shape.hidden, inter = shape.inter;
  const auto weights = [&](int64_t rows, int64_t columns) {
    return DrawNarrow(shape.values, slots * rows * columns, slots * WeightScales(rows, columns),
                      std::sqrt(3.0 / static_cast<double>(columns)), &random);
  };
  Narrow x = DrawNarrow(shape.values, layout.rows() * hidden, layout.row_scales(hidden), 2, &random);
  Narrow gate_up = weights(2 * inter, hidden);
  Narrow down = weights(hidden, inter);
  return {shape, layout, std::move(x), std::move(gate_up), std::move(down)};
}

enum class Rounding {
  kAsSpecified,  // h to bf16, a to bf16 or fp8, y to bf16: errors are those of the sums.
  kNone,
};

// y [rows, hidden]; rows of padding are NaN.
inline std::vector<double> Reference(const Case& mlp, Rounding rounding) {
  const auto& [shape, layout, x, gate_up, down] = mlp;
  const int64_t hidden = shape.hidden, inter = shape.inter;
  const auto weight = [&](const Narrow& w, int64_t slot, int64_t rows, int64_t columns, int64_t r, int64_t c) {
    const auto place = static_cast<size_t>((slot * rows + r) * columns + c);
    if (shape.values == BF16) return static_cast<double>(FloatOfBf16(w.bf16[place]));
    const auto scale = static_cast<size_t>(slot * WeightScales(rows, columns) +
                                           r / kScaleBlock * WeightScaleStride(columns) + c / kScaleBlock);
    return static_cast<double>(FloatOfFp8(w.fp8[place])) * static_cast<double>(w.scales[scale]);
  };
  const auto to_bf16 = [&](double value) {
    return rounding == Rounding::kNone ? value : static_cast<double>(FloatOfBf16(Bf16Of(static_cast<float>(value))));
  };
  std::vector<double> y(static_cast<size_t>(layout.rows() * hidden), std::nan(""));
  std::vector<double> row(static_cast<size_t>(hidden)), h(static_cast<size_t>(2 * inter)),
      a(static_cast<size_t>(inter));
  for (int64_t slot = 0; slot < layout.slots(); ++slot) {
    for (int64_t token = 0; token < shape.tokens_per_slot[static_cast<size_t>(slot)]; ++token) {
      const int64_t place = layout.row_begin(slot) + token;
      for (int64_t i = 0; i < hidden; ++i) {
        const auto at = static_cast<size_t>(place * hidden + i);
        row[static_cast<size_t>(i)] =
            shape.values == BF16
                ? static_cast<double>(FloatOfBf16(x.bf16[at]))
                : static_cast<double>(FloatOfFp8(x.fp8[at])) *
                      static_cast<double>(
                          x.scales[static_cast<size_t>(layout.RowScale(slot, token, i / kScaleBlock, hidden))]);
      }
      for (int64_t r = 0; r < 2 * inter; ++r) {
        double sum = 0;
        for (int64_t i = 0; i < hidden; ++i) {
          sum += row[static_cast<size_t>(i)] * weight(gate_up, slot, 2 * inter, hidden, r, i);
        }
        h[static_cast<size_t>(r)] = to_bf16(sum);
      }
      for (int64_t i = 0; i < inter; ++i) {
        const double gate = h[static_cast<size_t>(i)];
        a[static_cast<size_t>(i)] = gate / (1 + std::exp(-gate)) * h[static_cast<size_t>(inter + i)];
        if (shape.values == BF16) a[static_cast<size_t>(i)] = to_bf16(a[static_cast<size_t>(i)]);
      }
      for (int64_t first = 0; shape.values == FP8 && rounding == Rounding::kAsSpecified && first < inter;
           first += kScaleBlock) {
        double largest = 0;
        for (int64_t i = first; i < first + kScaleBlock; ++i) {
          largest = std::max(largest, std::abs(a[static_cast<size_t>(i)]));
        }
        const Fp8Scale scale = ScaleToFp8(static_cast<float>(largest));
        for (int64_t i = first; i < first + kScaleBlock; ++i) {
          double& value = a[static_cast<size_t>(i)];
          value = static_cast<double>(FloatOfFp8(Fp8Of(static_cast<float>(value) * scale.inverse))) *
                  static_cast<double>(scale.scale);
        }
      }
      for (int64_t r = 0; r < hidden; ++r) {
        double sum = 0;
        for (int64_t i = 0; i < inter; ++i) {
          sum += a[static_cast<size_t>(i)] * weight(down, slot, hidden, inter, r, i);
        }
        y[static_cast<size_t>(place * hidden + r)] = to_bf16(sum);
      }
    }
  }
  return y;
}

// |y - reference| / |reference| over the rows that have tokens; NaN where an element of y is.
inline double RelativeError(const std::vector<uint16_t>& y, const std::vector<double>& reference) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    if (std::isnan(reference[i])) continue;
    const double error = static_cast<double>(FloatOfBf16(y[i])) - reference[i];
    difference += error * error;
    norm += reference[i] * reference[i];
  }
  return std::sqrt(difference / norm);
}

inline constexpr uint16_t kPoison = 0x7fc1;  // Not a number, in bf16.

}  // namespace epsim::expert_mlp_case
