// The kernels of models/kernels for the stand-in of a GPU: SwiGLU's own code on the emulator, the rest as they are
// specified.
#include <cstdint>

#include "absl/status/status.h"
#include "engine/check.h"
#include "engine/random_stream.h"
#include "models/kernels/clock/empty_kernel.h"
#include "models/kernels/clock/random_data.h"
#include "tests/models/kernels/cuda_on_cpu.h"
#include "tests/models/kernels/gpu_on_cpu.h"
//
#include "models/kernels/swiglu.cuh"

namespace epsim {
namespace {

using gpu_on_cpu::CopyMicroseconds;
using gpu_on_cpu::Enqueue;

template <typename T, typename Convert>
absl::Status Draw(T* values, int64_t count, double low, double high, uint64_t seed, CUstream_st* stream,
                  Convert convert) {
  Enqueue(stream, 1, [=] {
    RandomStream random(seed, "stand-in");
    for (int64_t i = 0; i < count; ++i) values[i] = convert(static_cast<float>(low + (high - low) * random.Unit()));
  });
  return absl::OkStatus();
}

}  // namespace

absl::Status SwigluOnGpu(const SwigluRows& rows, CUstream_st* stream) {
  Enqueue(stream, 2 + CopyMicroseconds(6.0 * static_cast<double>(rows.rows * rows.inter)),
          [rows] { EPSIM_CHECK(EnqueueSwiglu(CpuStream(), rows).ok()); });
  return absl::OkStatus();
}

absl::Status LaunchEmptyKernel(CUstream_st* stream) {
  Enqueue(stream, 1.5, [] {});
  return absl::OkStatus();
}

absl::Status DrawFloats(float* values, int64_t count, float low, float high, uint64_t seed, CUstream_st* stream) {
  return Draw(values, count, low, high, seed, stream, [](float value) { return value; });
}
absl::Status DrawBf16(uint16_t* values, int64_t count, float low, float high, uint64_t seed, CUstream_st* stream) {
  return Draw(values, count, low, high, seed, stream, [](float value) { return Bf16Of(value); });
}
absl::Status DrawFp8(uint8_t* values, int64_t count, uint64_t seed, CUstream_st* stream) {
  return Draw(values, count, -448, 448, seed, stream, [](float value) { return Fp8Of(value); });
}

}  // namespace epsim
