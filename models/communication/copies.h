// Copies of tokens that travel straight from the rank of a token to ranks of its experts, and back.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "engine/check.h"
#include "models/communication/exchange.h"
#include "platforms/network/network.h"

namespace epsim {

enum class Direction { kDispatch, kCombine };

// `copies` [ranks, ranks]: from each rank (row) to each other, one per rank visited or one per expert.
//   dispatch  bytes[s, d] = copies[s, d] * bytes_per_copy
//   combine   bytes[d, s] = copies[s, d] * bytes_per_copy
// The diagonal is 0: what stays does not cross a link.  Replaces traffic->bytes.
inline void StraightCopies(absl::Span<const int32_t> copies, int64_t bytes_per_copy, Direction direction,
                           TrafficMatrix* traffic) {
  const int ranks = traffic->ranks;
  EPSIM_CHECK(copies.size() == static_cast<size_t>(ranks) * ranks && bytes_per_copy >> 32 == 0);
  traffic->bytes.resize(copies.size());
  // 32 x 32 bits, as every instruction set multiplies them.
  const auto bytes_of = [bytes_per_copy](int32_t count) {
    return static_cast<int64_t>(uint64_t{static_cast<uint32_t>(count)} * static_cast<uint32_t>(bytes_per_copy));
  };
  int64_t* const bytes = traffic->bytes.data();
  if (direction == Direction::kDispatch) {
    for (size_t i = 0; i < copies.size(); ++i) bytes[i] = bytes_of(copies[i]);
  } else {
    constexpr int kBlock = 8;  // A cache line of what is written.
    const auto turn = [&](int owner, int sources, int count) {
      for (int i = 0; i < count; ++i) {
        bytes[owner * ranks + sources + i] = bytes_of(copies[(sources + i) * ranks + owner]);
      }
    };
    const int whole = ranks / kBlock * kBlock;
    for (int sources = 0; sources < whole; sources += kBlock) {
      for (int owner = 0; owner < ranks; ++owner) turn(owner, sources, kBlock);
    }
    for (int owner = 0; owner < ranks; ++owner) turn(owner, whole, ranks - whole);
  }
  for (int rank = 0; rank < ranks; ++rank) bytes[rank * ranks + rank] = 0;
}

// Copies that each rank sends in dispatch and gets back in combine, and those that it receives and sends back; what
// stays on the rank counts in both.  [ranks]
struct CopiesOfRanks {
  std::vector<int64_t> sent, received;
};
inline CopiesOfRanks CountCopies(absl::Span<const int32_t> copies, int ranks) {
  CopiesOfRanks counts{std::vector<int64_t>(ranks), std::vector<int64_t>(ranks)};
  for (int source = 0; source < ranks; ++source) {
    for (int owner = 0; owner < ranks; ++owner) {
      counts.sent[source] += copies[source * ranks + owner];
      counts.received[owner] += copies[source * ranks + owner];
    }
  }
  return counts;
}

// Each rank's SMs take `picoseconds` for a copy that it sends or, if these are more, receives; the last has `latency`
// still to go.
inline void SetBusy(const CopiesOfRanks& copies, double picoseconds, Duration latency, Exchange* exchange) {
  for (size_t rank = 0; rank < copies.sent.size(); ++rank) {
    const int64_t most = std::max(copies.sent[rank], copies.received[rank]);
    if (most > 0) exchange->busy[rank] = RoundUpWithinStep(static_cast<double>(most) * picoseconds) + latency;
  }
}

}  // namespace epsim
