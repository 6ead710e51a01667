// The expert MLP of expert_mlp.h on the GPU: products by cuBLAS, SwiGLU by our kernel between them.
//
// Slots are dealt to a few streams, in order, about as much to each: in a stream come the gate-up products of its
// slots, one SwiGLU for all their rows, and the down products.  A product of one slot rarely fills a GPU (512 rows of
// DeepSeek-V3's gate-up are 64 tiles of 128 x 256 for 132 multiprocessors); those of other streams fill the rest.
// Captured in a graph, the launches cost next to nothing.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/kernels/clock/gpu_device.h"
#include "models/kernels/cublas_library.h"
#include "models/kernels/cuda_objects.h"
#include "models/kernels/device_buffer.h"
#include "models/kernels/expert_mlp.h"
#include "models/kernels/swiglu_gpu.h"
#include "models/kernels/tensor_product.h"

namespace epsim {

class ExpertMlpGpu {
 public:
  enum class Calls {
    kPerSlot,  // One call of cuBLASLt for each product.
    kGrouped,  // One call of cuBLAS's grouped GEMM for the gate-up of all slots, one for the down: BF16 only.
  };
  static constexpr int kMostStreams = 8;

  // Ok, or why this GPU cannot: the numbers, or a dimension that does not go.
  static absl::Status Check(const GpuDevice& gpu, const ExpertMlpShape& shape);
  // Device memory that an object takes, with kMostStreams.
  static int64_t Bytes(const ExpertMlpShape& shape);

  // `streams` from 1 to kMostStreams; 1 with kGrouped.  `gpu` must outlive the object.
  static absl::StatusOr<std::unique_ptr<ExpertMlpGpu>> Create(const GpuDevice& gpu, const ExpertMlpShape& shape,
                                                              Calls calls, int streams);

  // Says what to compute on: arrays in device memory that outlive the object, y [rows, hidden] in bf16.  Returns the
  // number by which Launch knows them: 0, 1, ...
  absl::StatusOr<int> Bind(const ExpertMlpInputs& inputs, uint16_t* y);

  // Launches on `stream`, which waits for the streams within.  Rows of padding in y get numbers of no meaning; slots
  // without tokens are not touched.  One launch must be done before the next begins: they share memory.
  absl::Status Launch(int binding, cudaStream_t stream);

 private:
  struct Binding {
    ExpertMlpInputs inputs;
    uint16_t* y = nullptr;
    DeviceBuffer<void*> pointers;  // kGrouped: of the gate-up (w, x, h) and the down (w, a, y): [6, groups].
  };
  // The slots [begin, end) of one stream.
  struct Lane {
    int64_t begin = 0, end = 0;
    OwnedStream stream;  // Null for the first, which runs in the stream of the launch.
    OwnedEvent done;
    DeviceBuffer<uint8_t> workspace;
    std::map<int64_t, std::pair<TensorProduct, TensorProduct>> products;  // Gate-up and down, by the number of rows.
  };
  // One of the two grouped calls; read by cuBLAS when it is called, and kept for graphs that are launched later.
  struct GroupedCall {
    std::vector<cublasOperation_t> transpose_w, transpose_x;
    std::vector<int> m, n, k, w_stride, x_stride, y_stride, size;
    std::vector<float> one, zero;
  };

  ExpertMlpGpu(const GpuDevice& gpu, const ExpertMlpShape& shape) : gpu_(gpu), shape_(shape), layout_(shape) {}
  absl::Status Allocate();
  absl::Status MakeLanes(int streams);
  absl::Status MakeGroupedCalls();
  absl::Status LaunchLane(Lane& lane, const Binding& binding, cudaStream_t stream);
  absl::Status LaunchSwiglu(int64_t row_begin, int64_t row_end, cudaStream_t stream);
  absl::Status LaunchGrouped(const GroupedCall& call, void* const* pointers, cudaStream_t stream);

  const GpuDevice& gpu_;
  const ExpertMlpShape shape_;
  const ExpertMlpLayout layout_;
  Calls calls_ = Calls::kPerSlot;
  DeviceBuffer<uint16_t> h_;         // [rows, 2 inter]
  DeviceBuffer<uint8_t> a_;          // [rows, inter], in bytes.
  DeviceBuffer<float> a_scales_;     // FP8: [row_scales(inter)]
  DeviceBuffer<ScalePlace> places_;  // FP8: [rows]
  OwnedEvent begun_;
  std::vector<Lane> lanes_;
  std::vector<Binding> bindings_;
  CublasOwned<cublasHandle_t> handle_;  // kGrouped.
  GroupedCall gate_up_, down_;
};

}  // namespace epsim
