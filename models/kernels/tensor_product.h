// One matrix product on the tensor cores, through cuBLASLt: y = x w', with x [rows, k], w [n, k], y [rows, n] in bf16,
// added up in float32.  In FP8 with block scales laid out as in expert_mlp.h, which cuBLAS has for compute capability
// 9.0 alone (cuBLAS 12.9 and later, "128-element 1D and 128x128 2D block scaling").
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/kernels/clock/gpu_device.h"
#include "models/kernels/cublas_library.h"
#include "models/number_type.pb.h"

namespace epsim {

class TensorProduct {
 public:
  static constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;

  struct Shape {
    NumberType values = BF16;
    int64_t rows = 0, n = 0, k = 0;
  };
  // Aligned to 16 bytes.
  struct Operands {
    const void* x = nullptr;          // [rows, k]
    const void* w = nullptr;          // [n, k]
    uint16_t* y = nullptr;            // [rows, n]
    const float* x_scales = nullptr;  // FP8: [k / 128, rows]
    const float* w_scales = nullptr;  // FP8: [n / 128, WeightScaleStride(k)]
  };

  // Ok, or why this GPU cannot: the numbers, or a dimension that does not go.
  static absl::Status Check(const GpuDevice& gpu, const Shape& shape);

  // Asks cuBLASLt for the algorithm; fails where Check does, and where cuBLASLt has none.  `gpu` must outlive the
  // product; `workspace` is device memory of kWorkspaceBytes, for products that run one after the other.
  static absl::StatusOr<TensorProduct> Create(const GpuDevice& gpu, const Shape& shape, void* workspace);

  absl::Status Launch(const Operands& operands, cudaStream_t stream);

 private:
  explicit TensorProduct(const GpuDevice& gpu) : gpu_(&gpu) {}
  absl::Status SetScales(const float* w_scales, const float* x_scales);

  const GpuDevice* gpu_;
  Shape shape_;
  void* workspace_ = nullptr;
  CublasOwned<cublasLtMatmulDesc_t> operation_;
  CublasOwned<cublasLtMatrixLayout_t> w_, x_, y_;
  cublasLtMatmulAlgo_t algorithm_ = {};
};

}  // namespace epsim
