// Draws indices in proportion to given weights in constant time: the alias method (Vose 1991, "A linear algorithm for
// generating random numbers with a given distribution").
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "engine/random_stream.h"

namespace epsim {

class AliasTable {
 public:
  // REQUIRES: weights are finite and not negative, and one is positive.
  explicit AliasTable(absl::Span<const double> weights);

  // An index of positive weight.
  int32_t Draw(RandomStream* random) const {
    const Column& column = columns_[random->Below(columns_.size())];
    return random->Unit() < column.threshold ? column.own : column.alias;
  }

 private:
  struct Column {
    double threshold;  // The share of the column that is its own.
    int32_t own, alias;
  };
  std::vector<Column> columns_;
};

}  // namespace epsim
