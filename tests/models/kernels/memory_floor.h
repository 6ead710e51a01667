// What a CPU twin cannot be faster than: a pass that reads its inputs once and writes its outputs once.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "benchmark/benchmark.h"

namespace epsim {

// Inputs of repeated runs rotate over so many sets that no cache keeps them: 32 MB of L3 and some more.
inline size_t RotatingSets(size_t bytes_of_set) { return std::max<size_t>(2, (size_t{96} << 20) / bytes_of_set + 1); }

// Copies what is both read and written, adds up the rest that is read, or fills the rest that is written.  Inputs
// rotate, as those of the twins do; the output is always the same.
inline void MemoryFloor(benchmark::State& state, size_t read_bytes, size_t written_bytes) {
  const size_t sets = RotatingSets(read_bytes), words = read_bytes / 8;
  std::vector<std::vector<uint64_t>> in;
  for (size_t i = 0; i < sets; ++i) in.emplace_back(words, i + 1);
  std::vector<uint64_t> out(written_bytes / 8, 1);
  const size_t copied = std::min(words, out.size());
  size_t set = 0;
  for (auto _ : state) {
    std::memcpy(out.data(), in[set].data(), copied * 8);
    uint64_t sum = 0;
    for (size_t i = copied; i < words; ++i) sum += in[set][i];
    benchmark::DoNotOptimize(sum);
    if (out.size() > copied) std::memset(out.data() + copied, 0x11, (out.size() - copied) * 8);
    benchmark::ClobberMemory();
    set = (set + 1) % sets;
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * static_cast<int64_t>(read_bytes + written_bytes));
}

}  // namespace epsim
