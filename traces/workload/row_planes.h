// Request traces lie token by token, a step runs layer by layer: the turn of one into the other.
#pragma once

#include <cstddef>

#include "absl/types/span.h"

namespace epsim {

// Bytes from one layer's plane to the next where a step of `tokens` tokens of `element_bytes` each is put together: the
// plane itself, padded to an odd number of 64-byte lines, so that the same token of all layers does not fall into one
// set of the cache.
size_t PlaneStride(size_t tokens, size_t element_bytes);

// planes[layer * plane_stride + token * element_bytes ...] = rows[token][layer * element_bytes ...], for every token
// and every layer.  rows: [tokens], each of layers * element_bytes bytes, anywhere in memory. REQUIRES: plane_stride >=
// tokens * element_bytes, planes holds layers * plane_stride bytes and overlaps no row.
void RowsToPlanes(absl::Span<const std::byte* const> rows, size_t layers, size_t element_bytes, size_t plane_stride,
                  std::byte* planes);

}  // namespace epsim
