// How long replays of a CUDA graph take, by events between them.
#pragma once

#include <cuda_runtime_api.h>

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/kernels/cuda_objects.h"

namespace epsim {

class GraphTimer {
 public:
  static absl::StatusOr<GraphTimer> Create();

  // The stream that graphs are captured from and replayed in.
  cudaStream_t stream() const { return stream_.get(); }

  // The microseconds of `replays` replays.  They follow one more that is not timed without a gap, so that no time is
  // lost to launching them.  Waits until they are done.
  absl::StatusOr<std::vector<double>> Replay(cudaGraphExec_t graph, int replays);

 private:
  OwnedStream stream_;
  std::vector<OwnedEvent> events_;
};

}  // namespace epsim
