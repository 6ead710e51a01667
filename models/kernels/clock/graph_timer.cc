#include "models/kernels/clock/graph_timer.h"

#include <utility>

#include "engine/status_macros.h"

namespace epsim {

absl::StatusOr<GraphTimer> GraphTimer::Create() {
  GraphTimer timer;
  ASSIGN_OR_RETURN(timer.stream_, NewStream());
  return timer;
}

absl::StatusOr<std::vector<double>> GraphTimer::Replay(cudaGraphExec_t graph, int replays) {
  const auto events = static_cast<size_t>(replays) + 1;
  while (events_.size() < events) {
    ASSIGN_OR_RETURN(OwnedEvent event, NewEvent(cudaEventDefault));
    events_.push_back(std::move(event));
  }
  for (size_t i = 0; i < events; ++i) {
    RETURN_IF_ERROR(CudaStatus(cudaGraphLaunch(graph, stream()), "cudaGraphLaunch"));
    RETURN_IF_ERROR(CudaStatus(cudaEventRecord(events_[i].get(), stream()), "cudaEventRecord"));
  }
  RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(stream()), "a graph's replay"));
  std::vector<double> times;
  for (size_t i = 1; i < events; ++i) {
    float milliseconds = 0;
    RETURN_IF_ERROR(CudaStatus(cudaEventElapsedTime(&milliseconds, events_[i - 1].get(), events_[i].get()),
                               "cudaEventElapsedTime"));
    times.push_back(1e3 * static_cast<double>(milliseconds));
  }
  return times;
}

}  // namespace epsim
