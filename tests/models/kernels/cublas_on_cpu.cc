#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "models/kernels/cublas_library.h"
#include "models/kernels/exact_float.h"
#include "models/kernels/fp8.h"
#include "tests/models/kernels/gpu_on_cpu.h"

namespace epsim {
namespace {

using gpu_on_cpu::CountAlive;
using gpu_on_cpu::Enqueue;
using gpu_on_cpu::ShallFail;
using gpu_on_cpu::TheGpu;

struct Operation {
  int32_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
  int32_t scale_mode_a = CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F,
          scale_mode_b = CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
  const float* scales_a = nullptr;
  const float* scales_b = nullptr;
};
struct Layout {
  cudaDataType type;
  int64_t rows, columns, stride;
};
struct Preference {
  uint64_t workspace = 0;
};

template <typename Handle, typename T>
cublasStatus_t Make(Handle* handle, T value, const char* kind) {
  *handle = reinterpret_cast<Handle>(new T(value));
  CountAlive(kind, 1);
  return CUBLAS_STATUS_SUCCESS;
}
template <typename T, typename Handle>
cublasStatus_t Destroy(Handle handle, const char* kind) {
  delete reinterpret_cast<T*>(handle);
  CountAlive(kind, -1);
  return CUBLAS_STATUS_SUCCESS;
}
template <typename T>
cublasStatus_t Set(T* place, const void* value, size_t bytes) {
  if (bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(place, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

bool Aligned(const void* data, uintptr_t to = 16) {
  return data != nullptr && reinterpret_cast<uintptr_t>(data) % to == 0;
}

double Value(const void* data, cudaDataType type, int64_t place) {
  return static_cast<double>(type == CUDA_R_8F_E4M3 ? FloatOfFp8(static_cast<const uint8_t*>(data)[place])
                                                    : FloatOfBf16(static_cast<const uint16_t*>(data)[place]));
}

// d [m, n] = a' b, with a [k, m], b [k, n], columns one after the other.
struct Product {
  Operation operation;
  Layout a, b, d;
  const void *a_data, *b_data;
  uint16_t* d_data;

  double Microseconds() const {
    const double m = static_cast<double>(a.columns), n = static_cast<double>(b.columns),
                 k = static_cast<double>(a.rows);
    const double width = a.type == CUDA_R_8F_E4M3 ? 1 : 2;
    return 2 + std::max(2 * m * n * k / 800e6, ((m + n) * k * width + 2 * m * n) / 4e6);
  }
  void Compute() const {
    const int64_t blocks = (a.rows + 127) / 128, padded_blocks = (blocks + 3) / 4 * 4;
    const bool scaled = a.type == CUDA_R_8F_E4M3;
    for (int64_t j = 0; j < b.columns; ++j) {
      for (int64_t i = 0; i < a.columns; ++i) {
        double sum = 0;
        for (int64_t block = 0; block < blocks; ++block) {
          double part = 0;
          for (int64_t l = 128 * block; l < std::min(128 * (block + 1), a.rows); ++l) {
            part += Value(a_data, a.type, i * a.stride + l) * Value(b_data, b.type, j * b.stride + l);
          }
          if (scaled) {
            part *= static_cast<double>(operation.scales_a[i / 128 * padded_blocks + block]) *
                    static_cast<double>(operation.scales_b[block * b.columns + j]);
          }
          sum += part;
        }
        d_data[j * d.stride + i] = Bf16Of(static_cast<float>(sum));
      }
    }
  }
};

// The rules of cuBLAS's documentation for what is used of it.
cublasStatus_t Check(const Operation& operation, const Layout& a, const Layout& b, const Layout& d) {
  const bool fits = a.rows == b.rows && a.columns == d.rows && b.columns == d.columns && a.stride >= a.rows &&
                    b.stride >= b.rows && d.stride >= d.rows && d.type == CUDA_R_16BF && a.type == b.type;
  if (!fits || operation.transpose_a != CUBLAS_OP_T || operation.transpose_b != CUBLAS_OP_N) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (a.type == CUDA_R_16BF) return CUBLAS_STATUS_SUCCESS;
  const bool possible = a.type == CUDA_R_8F_E4M3 && TheGpu().compute_capability == 90 && a.columns % 16 == 0 &&
                        a.rows % 16 == 0 && b.columns % 4 == 0 && Aligned(operation.scales_a) &&
                        Aligned(operation.scales_b) &&
                        operation.scale_mode_a == CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F &&
                        operation.scale_mode_b == CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F;
  return possible ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

const Layout& LayoutOf(cublasLtMatrixLayout_t layout) { return *reinterpret_cast<const Layout*>(layout); }

struct Handle {
  cudaStream_t stream = nullptr;
};

}  // namespace

absl::StatusOr<const CublasLibrary*> CublasLibrary::Get() {
  static const CublasLibrary* const kLibrary = [] {
    auto* const cublas = new CublasLibrary;
    cublas->lt_create = [](cublasLtHandle_t* handle) { return Make(handle, 1, "cuBLASLt handles"); };
    cublas->lt_destroy = [](cublasLtHandle_t handle) { return Destroy<int>(handle, "cuBLASLt handles"); };
    cublas->lt_get_version = []() -> size_t { return CUBLAS_VERSION; };
    cublas->lt_get_status_name = [](cublasStatus_t status) {
      return status == CUBLAS_STATUS_NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED" : "another cuBLAS status";
    };
    cublas->lt_matmul_desc_create = [](cublasLtMatmulDesc_t* operation, cublasComputeType_t compute, cudaDataType_t) {
      if (compute != CUBLAS_COMPUTE_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
      return Make(operation, Operation(), "matmul descriptors");
    };
    cublas->lt_matmul_desc_destroy = [](cublasLtMatmulDesc_t operation) {
      return Destroy<Operation>(operation, "matmul descriptors");
    };
    cublas->lt_matmul_desc_set_attribute = [](cublasLtMatmulDesc_t handle, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
      auto* const operation = reinterpret_cast<Operation*>(handle);
      switch (attribute) {
        case CUBLASLT_MATMUL_DESC_TRANSA:
          return Set(&operation->transpose_a, value, bytes);
        case CUBLASLT_MATMUL_DESC_TRANSB:
          return Set(&operation->transpose_b, value, bytes);
        case CUBLASLT_MATMUL_DESC_A_SCALE_MODE:
          return Set(&operation->scale_mode_a, value, bytes);
        case CUBLASLT_MATMUL_DESC_B_SCALE_MODE:
          return Set(&operation->scale_mode_b, value, bytes);
        case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER:
          return Set(&operation->scales_a, value, bytes);
        case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER:
          return Set(&operation->scales_b, value, bytes);
        default:
          return CUBLAS_STATUS_INVALID_VALUE;
      }
    };
    cublas->lt_matrix_layout_create = [](cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows,
                                         uint64_t columns, int64_t stride) {
      return Make(layout, Layout{type, static_cast<int64_t>(rows), static_cast<int64_t>(columns), stride},
                  "matrix layouts");
    };
    cublas->lt_matrix_layout_destroy = [](cublasLtMatrixLayout_t layout) {
      return Destroy<Layout>(layout, "matrix layouts");
    };
    cublas->lt_matmul_preference_create = [](cublasLtMatmulPreference_t* preference) {
      return Make(preference, Preference(), "preferences");
    };
    cublas->lt_matmul_preference_destroy = [](cublasLtMatmulPreference_t preference) {
      return Destroy<Preference>(preference, "preferences");
    };
    cublas->lt_matmul_preference_set_attribute = [](cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    size_t bytes) {
      uint32_t alignment = 0;
      if (attribute != CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) return Set(&alignment, value, bytes);
      return Set(&reinterpret_cast<Preference*>(preference)->workspace, value, bytes);
    };
    cublas->lt_matmul_algo_get_heuristic =
        [](cublasLtHandle_t, cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
           cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t, int requested,
           cublasLtMatmulHeuristicResult_t* results, int* count) {
          *count = 0;
          if (ShallFail("cublasLtMatmulAlgoGetHeuristic")) return CUBLAS_STATUS_NOT_SUPPORTED;
          if (ShallFail("finding an algorithm")) return CUBLAS_STATUS_SUCCESS;
          const cublasStatus_t status =
              Check(*reinterpret_cast<const Operation*>(operation), LayoutOf(a), LayoutOf(b), LayoutOf(d));
          if (status != CUBLAS_STATUS_SUCCESS || requested < 1) return status;
          *count = 1;
          results[0].state = CUBLAS_STATUS_SUCCESS;
          return status;
        };
    cublas->lt_matmul = [](cublasLtHandle_t, cublasLtMatmulDesc_t handle, const void* alpha, const void* a,
                           cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                           const void* beta, const void*, cublasLtMatrixLayout_t, void* d,
                           cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                           size_t, cudaStream_t stream) {
      const Product product = {*reinterpret_cast<const Operation*>(handle),
                               LayoutOf(a_layout),
                               LayoutOf(b_layout),
                               LayoutOf(d_layout),
                               a,
                               b,
                               static_cast<uint16_t*>(d)};
      const bool plain = *static_cast<const float*>(alpha) == 1 && *static_cast<const float*>(beta) == 0;
      if (!plain || algorithm == nullptr || !Aligned(a) || !Aligned(b) || !Aligned(d) || !Aligned(workspace, 256)) {
        return CUBLAS_STATUS_INVALID_VALUE;
      }
      const cublasStatus_t status = Check(product.operation, product.a, product.b, product.d);
      if (status == CUBLAS_STATUS_SUCCESS) Enqueue(stream, product.Microseconds(), [product] { product.Compute(); });
      return status;
    };

    cublas->create = [](cublasHandle_t* handle) { return Make(handle, Handle(), "cuBLAS handles"); };
    cublas->destroy = [](cublasHandle_t handle) { return Destroy<Handle>(handle, "cuBLAS handles"); };
    cublas->set_stream = [](cublasHandle_t handle, cudaStream_t stream) {
      reinterpret_cast<Handle*>(handle)->stream = stream;
      return CUBLAS_STATUS_SUCCESS;
    };
    cublas->set_workspace = [](cublasHandle_t, void* workspace, size_t) {
      return Aligned(workspace, 256) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
    };
    cublas->gemm_grouped_batched_ex = [](cublasHandle_t handle, const cublasOperation_t transpose_a[],
                                         const cublasOperation_t transpose_b[], const int m[], const int n[],
                                         const int k[], const void*, const void* const a[], cudaDataType_t a_type,
                                         const int a_stride[], const void* const b[], cudaDataType_t b_type,
                                         const int b_stride[], const void*, void* const d[], cudaDataType_t d_type,
                                         const int d_stride[], int groups, const int size[], cublasComputeType_t) {
      for (int group = 0; group < groups; ++group) {
        if (size[group] != 1) return CUBLAS_STATUS_INVALID_VALUE;
        Product product = {{.transpose_a = transpose_a[group], .transpose_b = transpose_b[group]},
                           {a_type, k[group], m[group], a_stride[group]},
                           {b_type, k[group], n[group], b_stride[group]},
                           {d_type, m[group], n[group], d_stride[group]},
                           nullptr,
                           nullptr,
                           nullptr};
        const cublasStatus_t status = Check(product.operation, product.a, product.b, product.d);
        if (status != CUBLAS_STATUS_SUCCESS) return status;
        // The pointers are in the GPU's memory: read when it gets there.
        Enqueue(reinterpret_cast<Handle*>(handle)->stream, product.Microseconds(), [=]() mutable {
          product.a_data = a[group];
          product.b_data = b[group];
          product.d_data = static_cast<uint16_t*>(d[group]);
          product.Compute();
        });
      }
      return CUBLAS_STATUS_SUCCESS;
    };
    return cublas;
  }();
  return kLibrary;
}

std::string CublasLibrary::version() const { return "0.0.0"; }

absl::Status CublasLibrary::Status(cublasStatus_t status, std::string_view what) const {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(std::string(what) + ": " + lt_get_status_name(status));
}

}  // namespace epsim
