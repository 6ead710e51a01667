#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "models/kernels/clock/gpu_work.h"
#include "models/kernels/clock/random_data.h"
#include "models/kernels/device_buffer.h"
#include "models/kernels/expert_mlp_gpu.h"

namespace epsim {
namespace {

class RankOfExperts : public GpuWork {
 public:
  RankOfExperts(const GpuDevice& gpu, ExpertMlpShape shape) : gpu_(gpu), shape_(std::move(shape)), layout_(shape_) {}

  int64_t set_bytes() const override {
    const int64_t width = shape_.values == FP8 ? 1 : 2;
    return (XValues() + GateUpValues() + DownValues()) * width + 2 * layout_.rows() * shape_.hidden +
           4 * (XScales() + GateUpScales() + DownScales());
  }
  int64_t shared_bytes() const override { return ExpertMlpGpu::Bytes(shape_); }

  // Takes the number of streams that is fastest.
  absl::Status Prepare(int sets, GraphTimer& timer) override {
    for (int i = 0; i < sets; ++i) {
      ASSIGN_OR_RETURN(Set set, DrawSet(static_cast<uint64_t>(6 * i), timer.stream()));
      sets_.push_back(std::move(set));
    }
    RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(timer.stream()), "random experts"));
    const auto busy = static_cast<int>(std::count_if(shape_.tokens_per_slot.begin(), shape_.tokens_per_slot.end(),
                                                     [](int tokens) { return tokens > 0; }));
    int best = 1;
    double best_us = 0;
    for (int streams = 1; streams <= std::min(busy, ExpertMlpGpu::kMostStreams); streams *= 2) {
      RETURN_IF_ERROR(MakeMlp(streams));
      ASSIGN_OR_RETURN(const double us, TimeOnce(timer));
      if (streams == 1 || us < best_us) {
        best = streams;
        best_us = us;
      }
    }
    return MakeMlp(best);
  }

  absl::Status Launch(int set, cudaStream_t stream) override { return mlp_->Launch(set, stream); }

 private:
  struct Set {
    DeviceBuffer<uint8_t> x, gate_up, down;
    DeviceBuffer<float> x_scales, gate_up_scales, down_scales;
    DeviceBuffer<uint16_t> y;
  };

  int64_t XValues() const { return layout_.rows() * shape_.hidden; }
  int64_t GateUpValues() const { return layout_.slots() * 2 * shape_.inter * shape_.hidden; }
  int64_t DownValues() const { return layout_.slots() * shape_.hidden * shape_.inter; }
  int64_t XScales() const { return shape_.values == FP8 ? layout_.row_scales(shape_.hidden) : 0; }
  int64_t GateUpScales() const {
    return shape_.values == FP8 ? layout_.slots() * WeightScales(2 * shape_.inter, shape_.hidden) : 0;
  }
  int64_t DownScales() const {
    return shape_.values == FP8 ? layout_.slots() * WeightScales(shape_.hidden, shape_.inter) : 0;
  }

  // Values of about -amplitude to amplitude: in FP8 by their scales.
  absl::Status Draw(int64_t count, int64_t scale_count, double amplitude, uint64_t seed, cudaStream_t stream,
                    DeviceBuffer<uint8_t>* values, DeviceBuffer<float>* scales) const {
    const auto largest = static_cast<float>(amplitude);
    ASSIGN_OR_RETURN(*values, DeviceBuffer<uint8_t>::Allocate(count * (shape_.values == FP8 ? 1 : 2)));
    if (shape_.values != FP8) {
      return DrawBf16(reinterpret_cast<uint16_t*>(values->data()), count, -largest, largest, seed, stream);
    }
    ASSIGN_OR_RETURN(*scales, DeviceBuffer<float>::Allocate(scale_count));
    RETURN_IF_ERROR(DrawFp8(values->data(), count, seed, stream));
    return DrawFloats(scales->data(), scale_count, 0.5f * largest / 448, 1.5f * largest / 448, seed + 1, stream);
  }

  absl::StatusOr<Set> DrawSet(uint64_t seed, cudaStream_t stream) const {
    Set set;
    const double into_h = std::sqrt(3.0 / static_cast<double>(shape_.hidden));
    const double into_y = std::sqrt(3.0 / static_cast<double>(shape_.inter));
    RETURN_IF_ERROR(Draw(XValues(), XScales(), 2, seed, stream, &set.x, &set.x_scales));
    RETURN_IF_ERROR(Draw(GateUpValues(), GateUpScales(), into_h, seed + 2, stream, &set.gate_up, &set.gate_up_scales));
    RETURN_IF_ERROR(Draw(DownValues(), DownScales(), into_y, seed + 4, stream, &set.down, &set.down_scales));
    ASSIGN_OR_RETURN(set.y, DeviceBuffer<uint16_t>::Allocate(layout_.rows() * shape_.hidden));
    return set;
  }

  absl::Status MakeMlp(int streams) {
    mlp_.reset();  // Its memory is what the next one takes.
    ASSIGN_OR_RETURN(mlp_, ExpertMlpGpu::Create(gpu_, shape_, ExpertMlpGpu::Calls::kPerSlot, streams));
    for (const Set& set : sets_) {
      RETURN_IF_ERROR(mlp_->Bind({.x = set.x.data(),
                                  .gate_up = set.gate_up.data(),
                                  .down = set.down.data(),
                                  .x_scales = set.x_scales.data(),
                                  .gate_up_scales = set.gate_up_scales.data(),
                                  .down_scales = set.down_scales.data()},
                                 set.y.data())
                          .status());
    }
    return absl::OkStatus();
  }

  // The fastest of a few replays over all sets.
  absl::StatusOr<double> TimeOnce(GraphTimer& timer) {
    RETURN_IF_ERROR(mlp_->Launch(0, timer.stream()));  // What cuBLAS loads at the first call is not to be captured.
    RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(timer.stream()), "the expert MLP"));
    ASSIGN_OR_RETURN(const OwnedGraphExec graph, CaptureGraph(timer.stream(), [&]() -> absl::Status {
                       for (size_t set = 0; set < sets_.size(); ++set) {
                         RETURN_IF_ERROR(mlp_->Launch(static_cast<int>(set), timer.stream()));
                       }
                       return absl::OkStatus();
                     }));
    constexpr int kReplays = 5;
    ASSIGN_OR_RETURN(const std::vector<double> times, timer.Replay(graph.get(), kReplays));
    return *std::min_element(times.begin(), times.end());
  }

  const GpuDevice& gpu_;
  const ExpertMlpShape shape_;
  const ExpertMlpLayout layout_;
  std::vector<Set> sets_;
  std::unique_ptr<ExpertMlpGpu> mlp_;  // Reads and writes the sets.
};

}  // namespace

absl::StatusOr<std::unique_ptr<GpuWork>> NewExpertMlpWork(const GpuDevice& gpu, const ExpertMlpWork& work) {
  const auto type = [](NumberType values) { return values == NUMBER_TYPE_DEFAULT ? BF16 : values; };
  if (type(work.weights()) != type(work.activations())) {
    return absl::UnimplementedError(absl::StrCat("an expert MLP with weights in ", NumberType_Name(work.weights()),
                                                 " and activations in ", NumberType_Name(work.activations()),
                                                 ": there are kernels for BF16 with BF16 and FP8 with FP8"));
  }
  ExpertMlpShape shape = {
      .hidden = work.hidden(), .inter = work.inter(), .values = type(work.weights()), .tokens_per_slot = {}};
  for (const uint32_t tokens : work.tokens_per_slot()) {
    if (tokens > uint32_t{1} << 30) return absl::InvalidArgumentError(absl::StrCat("tokens_per_slot: ", tokens));
    shape.tokens_per_slot.push_back(static_cast<int>(tokens));
  }
  RETURN_IF_ERROR(ExpertMlpGpu::Check(gpu, shape));
  return std::make_unique<RankOfExperts>(gpu, std::move(shape));
}

}  // namespace epsim
