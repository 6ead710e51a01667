#include "traces/workload/row_planes.h"

#include <cstring>

namespace epsim {
namespace {

constexpr size_t kLine = 64;
// Rows turned at a time: with 8 bytes a layer (top-8 of u8) each layer's plane gets one whole line.
constexpr size_t kBlock = 8;

void Prefetch(const std::byte* row, size_t bytes) {
  for (size_t at = 0; at < bytes; at += kLine) __builtin_prefetch(row + at);
}

// kElement: bytes of one token in one layer, or 0 where only known at run time.
template <size_t kElement>
void TurnBlock(const std::byte* const* rows, size_t count, size_t layers, size_t element_bytes, size_t plane_stride,
               std::byte* planes) {
  const size_t element = kElement == 0 ? element_bytes : kElement;
  for (size_t layer = 0; layer < layers; ++layer) {
    std::byte* to = planes + layer * plane_stride;
    for (size_t i = 0; i < count; ++i) std::memcpy(to + i * element, rows[i] + layer * element, element);
  }
}

template <size_t kElement>
void Turn(absl::Span<const std::byte* const> rows, size_t layers, size_t element_bytes, size_t plane_stride,
          std::byte* planes) {
  const size_t row_bytes = layers * element_bytes;
  size_t token = 0;
  for (; token + kBlock <= rows.size(); token += kBlock) {
    // The rows of a decode step lie far apart: ask for the next block's while this one is turned.
    for (size_t i = token + kBlock; i < rows.size() && i < token + 2 * kBlock; ++i) Prefetch(rows[i], row_bytes);
    TurnBlock<kElement>(rows.data() + token, kBlock, layers, element_bytes, plane_stride,
                        planes + token * element_bytes);
  }
  TurnBlock<kElement>(rows.data() + token, rows.size() - token, layers, element_bytes, plane_stride,
                      planes + token * element_bytes);
}

}  // namespace

size_t PlaneStride(size_t tokens, size_t element_bytes) {
  const size_t lines = (tokens * element_bytes + kLine - 1) / kLine;
  return (lines | 1) * kLine;
}

void RowsToPlanes(absl::Span<const std::byte* const> rows, size_t layers, size_t element_bytes, size_t plane_stride,
                  std::byte* planes) {
  switch (element_bytes) {
    case 1:
      return Turn<1>(rows, layers, element_bytes, plane_stride, planes);
    case 2:
      return Turn<2>(rows, layers, element_bytes, plane_stride, planes);
    case 4:
      return Turn<4>(rows, layers, element_bytes, plane_stride, planes);
    case 6:
      return Turn<6>(rows, layers, element_bytes, plane_stride, planes);
    case 8:
      return Turn<8>(rows, layers, element_bytes, plane_stride, planes);
    case 12:
      return Turn<12>(rows, layers, element_bytes, plane_stride, planes);
    case 16:
      return Turn<16>(rows, layers, element_bytes, plane_stride, planes);
    default:
      return Turn<0>(rows, layers, element_bytes, plane_stride, planes);
  }
}

}  // namespace epsim
