#include "models/kernels/tensor_product.h"

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "models/kernels/expert_mlp.h"

namespace epsim {
namespace {

std::string Words(const TensorProduct::Shape& shape) {
  return absl::StrCat("a ", NumberType_Name(shape.values), " product of ", shape.rows, " x ", shape.n, " x ", shape.k);
}

absl::StatusOr<CublasOwned<cublasLtMatrixLayout_t>> NewLayout(const CublasLibrary& cublas, cudaDataType_t type,
                                                              int64_t rows, int64_t columns) {
  cublasLtMatrixLayout_t layout = nullptr;
  RETURN_IF_ERROR(cublas.Status(
      cublas.lt_matrix_layout_create(&layout, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(columns), rows),
      "cublasLtMatrixLayoutCreate"));
  return CublasOwned<cublasLtMatrixLayout_t>(layout, cublas.lt_matrix_layout_destroy);
}

}  // namespace

absl::Status TensorProduct::Check(const GpuDevice& gpu, const Shape& shape) {
  if (shape.values != BF16 && shape.values != FP8) {
    return absl::UnimplementedError(
        absl::StrCat("products in ", NumberType_Name(shape.values), ": there are kernels for BF16 and FP8"));
  }
  const int capability = gpu.compute_capability();
  if (shape.values == FP8 && capability != 90) {
    return absl::UnimplementedError(absl::StrCat("FP8 with block scales needs compute capability 9.0",
                                                 capability < 89 ? " (fp8 at all: 8.9 or later)" : "", "; ",
                                                 gpu.hardware().gpu(), " has ", capability / 10, ".", capability % 10));
  }
  const int64_t multiple = shape.values == FP8 ? kScaleBlock : 8;
  const int64_t row_multiple = shape.values == FP8 ? 16 : 1;
  const auto check = [](const char* name, int64_t value, int64_t of) -> absl::Status {
    if (value > 0 && value % of == 0 && value < int64_t{1} << 31) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(name, ": ", value, " is no positive multiple of ", of));
  };
  RETURN_IF_ERROR(check("m", shape.rows, row_multiple));
  RETURN_IF_ERROR(check("n", shape.n, multiple));
  return check("k", shape.k, multiple);
}

absl::StatusOr<TensorProduct> TensorProduct::Create(const GpuDevice& gpu, const Shape& shape, void* workspace) {
  RETURN_IF_ERROR(Check(gpu, shape));
  const CublasLibrary& cublas = gpu.cublas();
  TensorProduct result(gpu);
  result.shape_ = shape;
  result.workspace_ = workspace;

  cublasLtMatmulDesc_t operation = nullptr;
  RETURN_IF_ERROR(cublas.Status(cublas.lt_matmul_desc_create(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                                "cublasLtMatmulDescCreate"));
  result.operation_ = {operation, cublas.lt_matmul_desc_destroy};
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value, const char* what) {
    return cublas.Status(cublas.lt_matmul_desc_set_attribute(operation, attribute, &value, sizeof(value)), what);
  };
  // cuBLAS stores columns one after the other: our rows.  y' [n, rows] = (w' [k, n])' x' [k, rows].
  RETURN_IF_ERROR(set(CUBLASLT_MATMUL_DESC_TRANSA, int32_t{CUBLAS_OP_T}, "cuBLASLt's TRANSA"));
  RETURN_IF_ERROR(set(CUBLASLT_MATMUL_DESC_TRANSB, int32_t{CUBLAS_OP_N}, "cuBLASLt's TRANSB"));
  if (shape.values == FP8) {
    RETURN_IF_ERROR(set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, int32_t{CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F},
                        "cuBLASLt's scales per 128 x 128 weights"));
    RETURN_IF_ERROR(set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, int32_t{CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F},
                        "cuBLASLt's scales per 128 values"));
    // Some place that is aligned as scales are, for the search of the algorithm.
    RETURN_IF_ERROR(result.SetScales(static_cast<const float*>(workspace), static_cast<const float*>(workspace)));
  }
  const cudaDataType_t type = shape.values == FP8 ? CUDA_R_8F_E4M3 : CUDA_R_16BF;
  ASSIGN_OR_RETURN(result.w_, NewLayout(cublas, type, shape.k, shape.n));
  ASSIGN_OR_RETURN(result.x_, NewLayout(cublas, type, shape.k, shape.rows));
  ASSIGN_OR_RETURN(result.y_, NewLayout(cublas, CUDA_R_16BF, shape.n, shape.rows));

  cublasLtMatmulPreference_t raw = nullptr;
  RETURN_IF_ERROR(cublas.Status(cublas.lt_matmul_preference_create(&raw), "cublasLtMatmulPreferenceCreate"));
  const CublasOwned<cublasLtMatmulPreference_t> preference(raw, cublas.lt_matmul_preference_destroy);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value, const char* what) {
    return cublas.Status(cublas.lt_matmul_preference_set_attribute(raw, attribute, &value, sizeof(value)), what);
  };
  RETURN_IF_ERROR(
      prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kWorkspaceBytes), "cuBLASLt's workspace"));
  for (const cublasLtMatmulPreferenceAttributes_t operand :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    RETURN_IF_ERROR(prefer(operand, uint32_t{16}, "cuBLASLt's alignment"));
  }
  cublasLtMatmulHeuristicResult_t found = {};
  int count = 0;
  const cublasStatus_t searched = cublas.lt_matmul_algo_get_heuristic(
      gpu.lt(), operation, result.w_.get(), result.x_.get(), result.y_.get(), result.y_.get(), raw, 1, &found, &count);
  if (searched == CUBLAS_STATUS_NOT_SUPPORTED || (searched == CUBLAS_STATUS_SUCCESS && count == 0)) {
    return absl::UnimplementedError(
        absl::StrCat("cuBLASLt ", cublas.version(), " has no algorithm for ", Words(shape)));
  }
  RETURN_IF_ERROR(cublas.Status(searched, absl::StrCat("cuBLASLt's algorithm for ", Words(shape))));
  RETURN_IF_ERROR(cublas.Status(found.state, absl::StrCat("cuBLASLt's algorithm for ", Words(shape))));
  result.algorithm_ = found.algo;
  return result;
}

absl::Status TensorProduct::SetScales(const float* w_scales, const float* x_scales) {
  const CublasLibrary& cublas = gpu_->cublas();
  const void* const w = w_scales;
  const void* const x = x_scales;
  RETURN_IF_ERROR(cublas.Status(
      cublas.lt_matmul_desc_set_attribute(operation_.get(), CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &w, sizeof(w)),
      "cuBLASLt's scales of the weights"));
  return cublas.Status(
      cublas.lt_matmul_desc_set_attribute(operation_.get(), CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &x, sizeof(x)),
      "cuBLASLt's scales of the rows");
}

absl::Status TensorProduct::Launch(const Operands& operands, cudaStream_t stream) {
  const CublasLibrary& cublas = gpu_->cublas();
  if (shape_.values == FP8) RETURN_IF_ERROR(SetScales(operands.w_scales, operands.x_scales));
  const float one = 1, zero = 0;
  return cublas.Status(cublas.lt_matmul(gpu_->lt(), operation_.get(), &one, operands.w, w_.get(), operands.x, x_.get(),
                                        &zero, operands.y, y_.get(), operands.y, y_.get(), &algorithm_, workspace_,
                                        static_cast<size_t>(kWorkspaceBytes), stream),
                       Words(shape_));
}

}  // namespace epsim
