// Whether routed ids are what a router can have produced: below the number of experts and, within one top-k, distinct.
#pragma once

#include <cstddef>
#include <cstdint>

namespace epsim {

// True if every one of the [rows, top_k] ids at `ids` is below `experts` and no row holds one twice.  id_bytes 1 or 2.
// Vectorised (AVX2 where the machine has it) up to top_k 32: this runs over every byte of a trace.
bool IdsAreSound(const std::byte* ids, int id_bytes, int64_t rows, int top_k, int experts);

// The first row that is not sound; -1 if none.  Only the first valid_count[row] ids of each (null: all) need be
// distinct, and what fills the other places need only be below `experts`.  REQUIRES: valid counts at most top_k.  The
// value that is wrong goes to `id`, and whether it is a repetition to `repeated`.  Not vectorised.
int64_t FirstUnsoundRow(const std::byte* ids, int id_bytes, int64_t rows, int top_k, int experts,
                        const uint8_t* valid_count, int* id, bool* repeated);

}  // namespace epsim
