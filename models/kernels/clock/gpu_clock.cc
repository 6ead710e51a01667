#include "models/kernels/clock/gpu_clock.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "models/kernels/clock/gpu_device.h"
#include "models/kernels/clock/gpu_work.h"
#include "models/kernels/clock/graph_timer.h"
#include "models/kernels/cuda_objects.h"

namespace epsim {
namespace {

constexpr int kCaches = 4;               // Sets of buffers together are at least so many times the L2.
constexpr int64_t kMostSets = 64;        // Sets smaller than that stay in the cache, as they would in an engine.
constexpr double kMemoryShare = 0.9;     // Of what is free; the rest is for graphs and modules.
constexpr double kGraphUs = 300;         // A graph takes about so long or longer: the ends of a replay are lost in it.
constexpr int64_t kMostLaunches = 2000;  // Captured in a graph.
constexpr double kBudgetUs = 100e3;      // Of a work's replays.
constexpr int kBatch = 10;               // Replays before the host waits.
constexpr size_t kFewestRepeats = 5, kMostRepeats = 300;

// The value below which a share `q` of the sorted `values` lies, between neighbours in proportion.
double Quantile(const std::vector<double>& values, double q) {
  const double place = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (values[above] - values[below]) * (place - static_cast<double>(below));
}

class GpuClock : public KernelClock {
 public:
  GpuClock(std::unique_ptr<GpuDevice> gpu, GraphTimer timer) : gpu_(std::move(gpu)), timer_(std::move(timer)) {}

  const Hardware& hardware() const override { return gpu_->hardware(); }

  absl::Status CanImplement(const KernelWork& work) const override {
    RETURN_IF_ERROR(gpu_->MakeCurrent());
    ASSIGN_OR_RETURN(const std::unique_ptr<GpuWork> kernels, NewGpuWork(*gpu_, work));
    return Sets(*kernels).status();
  }

  absl::StatusOr<KernelTime> Time(const KernelWork& work) override {
    RETURN_IF_ERROR(gpu_->MakeCurrent());
    ASSIGN_OR_RETURN(const std::unique_ptr<GpuWork> kernels, NewGpuWork(*gpu_, work));
    ASSIGN_OR_RETURN(const int sets, Sets(*kernels));
    RETURN_IF_ERROR(kernels->Prepare(sets, timer_));
    // Outside of a graph first: libraries load at their first call what must not be loaded in a capture.
    RETURN_IF_ERROR(kernels->Launch(0, timer_.stream()));
    RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(timer_.stream()), "the first run"));
    int64_t launches = sets;
    ASSIGN_OR_RETURN(OwnedGraphExec graph, Capture(*kernels, sets, launches));
    ASSIGN_OR_RETURN(const std::vector<double> first, timer_.Replay(graph.get(), 2));
    const double once = std::max(std::min(first[0], first[1]), 1e-3) / static_cast<double>(launches);
    const int64_t rounds = static_cast<int64_t>(std::ceil(kGraphUs / once / sets));
    if (rounds > 1 && launches < kMostLaunches) {
      launches = std::min(rounds, kMostLaunches / sets) * sets;
      ASSIGN_OR_RETURN(graph, Capture(*kernels, sets, launches));
    }
    return Repeat(graph.get(), launches);
  }

  // The clocks while the GPU multiplies large matrices.
  void AskClocksWhenBusy() {
    KernelWork product;
    product.mutable_gemm()->set_m(8192);
    product.mutable_gemm()->set_n(8192);
    product.mutable_gemm()->set_k(8192);
    product.mutable_gemm()->set_values(BF16);
    const auto kernels = NewGpuWork(*gpu_, product);
    if (kernels.ok() && Sets(**kernels).ok() && (*kernels)->Prepare(1, timer_).ok()) {
      constexpr int kProducts = 150;  // Of a millisecond or more each.
      for (int i = 0; i < kProducts; ++i) {
        if (!(*kernels)->Launch(0, timer_.stream()).ok()) break;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    gpu_->AskClocks();
    cudaStreamSynchronize(timer_.stream());
  }

 private:
  // How many sets of buffers; fails where one does not fit.
  absl::StatusOr<int> Sets(const GpuWork& kernels) const {
    ASSIGN_OR_RETURN(const int64_t free, gpu_->FreeBytes());
    const auto usable = static_cast<int64_t>(kMemoryShare * static_cast<double>(free));
    const int64_t set = kernels.set_bytes(), shared = kernels.shared_bytes();
    if (set + shared > usable) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "does not fit: needs ", set + shared, " bytes of the GPU's memory, of which ", usable, " are free to use"));
    }
    if (set == 0) return 1;
    const int64_t wanted = std::min((kCaches * gpu_->l2_bytes() + set - 1) / set, kMostSets);
    return static_cast<int>(std::max<int64_t>(std::min(wanted, (usable - shared) / set), 1));
  }

  absl::StatusOr<OwnedGraphExec> Capture(GpuWork& kernels, int sets, int64_t launches) {
    return CaptureGraph(timer_.stream(), [&]() -> absl::Status {
      for (int64_t i = 0; i < launches; ++i) {
        RETURN_IF_ERROR(kernels.Launch(static_cast<int>(i % sets), timer_.stream()));
      }
      return absl::OkStatus();
    });
  }

  absl::StatusOr<KernelTime> Repeat(cudaGraphExec_t graph, int64_t launches) {
    std::vector<double> times;
    double spent = 0;
    while (times.size() < kFewestRepeats || (spent < kBudgetUs && times.size() < kMostRepeats)) {
      const int batch = spent == 0 ? static_cast<int>(kFewestRepeats) : kBatch;
      ASSIGN_OR_RETURN(const std::vector<double> replays, timer_.Replay(graph, batch));
      for (const double us : replays) {
        times.push_back(us / static_cast<double>(launches));
        spent += us;
      }
    }
    std::sort(times.begin(), times.end());
    KernelTime time;
    time.set_median_us(Quantile(times, 0.5));
    time.set_lower_quartile_us(Quantile(times, 0.25));
    time.set_upper_quartile_us(Quantile(times, 0.75));
    time.set_repeats(static_cast<uint32_t>(times.size()));
    return time;
  }

  const std::unique_ptr<GpuDevice> gpu_;
  GraphTimer timer_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<KernelClock>> NewGpuClock(int device) {
  ASSIGN_OR_RETURN(std::unique_ptr<GpuDevice> gpu, GpuDevice::Open(device));
  ASSIGN_OR_RETURN(GraphTimer timer, GraphTimer::Create());
  auto clock = std::make_unique<GpuClock>(std::move(gpu), std::move(timer));
  clock->AskClocksWhenBusy();
  return clock;
}

}  // namespace epsim
