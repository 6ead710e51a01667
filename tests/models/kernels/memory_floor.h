// What a CPU twin cannot be faster than: a pass that reads its inputs once and writes its outputs once.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "benchmark/benchmark.h"

namespace epsim {

// Data for repeated runs rotate over so many sets that no cache keeps them: 32 MB of L3 and some more.
inline size_t RotatingSets(size_t bytes_of_set) { return std::max<size_t>(2, (size_t{96} << 20) / bytes_of_set + 1); }

// Copies what is both read and written, adds up the rest that is read, or fills the rest that is written.
inline void MemoryFloor(benchmark::State& state, size_t read_bytes, size_t written_bytes) {
  const size_t sets = RotatingSets(read_bytes + written_bytes), words = read_bytes / 8;
  std::vector<std::vector<uint64_t>> in, out;
  for (size_t i = 0; i < sets; ++i) {
    in.emplace_back(words, i + 1);
    out.emplace_back(written_bytes / 8, i);
  }
  size_t set = 0;
  for (auto _ : state) {
    const size_t copied = std::min(in[set].size(), out[set].size());
    std::memcpy(out[set].data(), in[set].data(), copied * 8);
    uint64_t sum = 0;
    for (size_t i = copied; i < in[set].size(); ++i) sum += in[set][i];
    benchmark::DoNotOptimize(sum);
    std::memset(out[set].data() + copied, 0x11, (out[set].size() - copied) * 8);
    benchmark::ClobberMemory();
    set = (set + 1) % sets;
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * static_cast<int64_t>(read_bytes + written_bytes));
}

}  // namespace epsim
