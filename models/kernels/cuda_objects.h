// CUDA's streams, events and graphs, destroyed when their owner goes.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <type_traits>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/status_macros.h"
#include "models/kernels/cuda_status.h"

namespace epsim {

template <auto kDestroy>
struct CudaDestroy {
  template <typename T>
  void operator()(T* object) const {
    kDestroy(object);
  }
};
using OwnedStream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, CudaDestroy<cudaStreamDestroy>>;
using OwnedEvent = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, CudaDestroy<cudaEventDestroy>>;
using OwnedGraph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, CudaDestroy<cudaGraphDestroy>>;
using OwnedGraphExec = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, CudaDestroy<cudaGraphExecDestroy>>;

// That does not wait for the legacy default stream.
inline absl::StatusOr<OwnedStream> NewStream() {
  cudaStream_t stream = nullptr;
  RETURN_IF_ERROR(CudaStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate"));
  return OwnedStream(stream);
}

inline absl::StatusOr<OwnedEvent> NewEvent(unsigned flags) {  // cudaEventDefault, or cudaEventDisableTiming.
  cudaEvent_t event = nullptr;
  RETURN_IF_ERROR(CudaStatus(cudaEventCreateWithFlags(&event, flags), "cudaEventCreate"));
  return OwnedEvent(event);
}

// What `launch` launches on `stream`, and on streams that join it again, as one graph; nothing is executed.
inline absl::StatusOr<OwnedGraphExec> CaptureGraph(cudaStream_t stream, absl::FunctionRef<absl::Status()> launch) {
  RETURN_IF_ERROR(CudaStatus(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "begin of a capture"));
  const absl::Status launched = launch();
  cudaGraph_t captured = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream, &captured);
  const OwnedGraph graph(captured);
  if (!launched.ok()) {
    cudaGetLastError();  // That the capture was ended early.
    return launched;
  }
  RETURN_IF_ERROR(CudaStatus(ended, "end of a capture"));
  cudaGraphExec_t executable = nullptr;
  RETURN_IF_ERROR(CudaStatus(cudaGraphInstantiate(&executable, graph.get(), 0), "cudaGraphInstantiate"));
  return OwnedGraphExec(executable);
}

}  // namespace epsim
