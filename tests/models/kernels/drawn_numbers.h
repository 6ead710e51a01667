// Inputs of kernel tests.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/random_stream.h"

namespace epsim {

// Of mean 0 and standard deviation `spread`.
inline std::vector<float> DrawNormal(size_t count, double spread, const std::string& name) {
  RandomStream random(1, name);
  std::vector<float> numbers(count);
  for (float& number : numbers) {
    const double radius = std::sqrt(-2 * std::log(1 - random.Unit()));
    number = static_cast<float>(spread * radius * std::cos(6.283185307179586 * random.Unit()));
  }
  return numbers;
}

// Multiples of `step` from 0 to below `values` steps: many are equal.
inline std::vector<float> DrawSteps(size_t count, int values, float step, const std::string& name) {
  RandomStream random(1, name);
  std::vector<float> numbers(count);
  for (float& number : numbers) number = static_cast<float>(random.Below(static_cast<uint64_t>(values))) * step;
  return numbers;
}

// `top_k` distinct numbers below `below` in each row; skewed towards the low ones.  [rows, top_k]
inline std::vector<int32_t> DrawIds(size_t rows, int top_k, int below, const std::string& name) {
  RandomStream random(1, name);
  std::vector<int32_t> ids;
  std::vector<bool> taken;
  for (size_t row = 0; row < rows; ++row) {
    taken.assign(static_cast<size_t>(below), false);
    for (int k = 0; k < top_k;) {
      const double skewed = random.Unit() < 0.5 ? random.Unit() * random.Unit() : random.Unit();
      const size_t id = static_cast<size_t>(skewed * below);
      if (taken[id]) continue;
      taken[id] = true;
      ids.push_back(static_cast<int32_t>(id));
      ++k;
    }
  }
  return ids;
}

}  // namespace epsim
