// The grouped expert MLP on a real GPU against a reference in float64 and against the twin: fresh random inputs,
// poisoned outputs, slots without tokens; launched, and replayed in a graph.
#include "models/kernels/expert_mlp_gpu.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <memory>
#include <ostream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/status_macros.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/kernels/clock/gpu_device.h"
#include "models/kernels/clock/graph_timer.h"
#include "models/kernels/clock/random_data.h"
#include "models/kernels/cuda_objects.h"
#include "models/kernels/device_buffer.h"
#include "tests/models/kernels/expert_mlp_case.h"

namespace epsim {
namespace {

using expert_mlp_case::Case;
using expert_mlp_case::DrawCase;
using expert_mlp_case::kPoison;
using expert_mlp_case::Narrow;
using expert_mlp_case::Reference;
using expert_mlp_case::RelativeError;
using expert_mlp_case::Rounding;

const absl::StatusOr<std::unique_ptr<GpuDevice>>& Gpu() {
  static const auto* const kGpu = new absl::StatusOr<std::unique_ptr<GpuDevice>>(GpuDevice::Open(0));
  return *kGpu;
}

// The arrays of a case in the GPU's memory.
struct OnDevice {
  DeviceBuffer<uint8_t> x, gate_up, down;
  DeviceBuffer<float> x_scales, gate_up_scales, down_scales;
  DeviceBuffer<uint16_t> y;

  ExpertMlpInputs inputs() const {
    return {.x = x.data(),
            .gate_up = gate_up.data(),
            .down = down.data(),
            .x_scales = x_scales.data(),
            .gate_up_scales = gate_up_scales.data(),
            .down_scales = down_scales.data()};
  }
};

absl::Status Upload(const Narrow& narrow, DeviceBuffer<uint8_t>* values, DeviceBuffer<float>* scales) {
  const size_t bytes = narrow.fp8.size() + 2 * narrow.bf16.size();
  ASSIGN_OR_RETURN(*values, DeviceBuffer<uint8_t>::Allocate(static_cast<int64_t>(bytes)));
  RETURN_IF_ERROR(CopyToDevice(static_cast<const uint8_t*>(narrow.data()), *values));
  ASSIGN_OR_RETURN(*scales, DeviceBuffer<float>::Allocate(static_cast<int64_t>(narrow.scales.size())));
  return CopyToDevice(narrow.scales.data(), *scales);
}

absl::StatusOr<OnDevice> Upload(const Case& mlp) {
  OnDevice device;
  RETURN_IF_ERROR(Upload(mlp.x, &device.x, &device.x_scales));
  RETURN_IF_ERROR(Upload(mlp.gate_up, &device.gate_up, &device.gate_up_scales));
  RETURN_IF_ERROR(Upload(mlp.down, &device.down, &device.down_scales));
  ASSIGN_OR_RETURN(device.y, DeviceBuffer<uint16_t>::Allocate(mlp.layout.rows() * mlp.shape.hidden));
  return device;
}

absl::Status Poison(const DeviceBuffer<uint16_t>& y) {
  const std::vector<uint16_t> poison(static_cast<size_t>(y.size()), kPoison);
  return CopyToDevice(poison.data(), y);
}

struct Named {
  const char* name;
  ExpertMlpShape shape;
  ExpertMlpGpu::Calls calls = ExpertMlpGpu::Calls::kPerSlot;
  int streams = 1;
};
void PrintTo(const Named& named, std::ostream* out) { *out << named.name; }

// y as one launch gives it, then as the second replay of a graph does.
absl::StatusOr<std::vector<std::vector<uint16_t>>> Execute(const Named& named, const Case& mlp) {
  ASSIGN_OR_RETURN(const OnDevice device, Upload(mlp));
  ASSIGN_OR_RETURN(const auto kernels, ExpertMlpGpu::Create(**Gpu(), mlp.shape, named.calls, named.streams));
  ASSIGN_OR_RETURN(const int binding, kernels->Bind(device.inputs(), device.y.data()));
  ASSIGN_OR_RETURN(const OwnedStream stream, NewStream());
  std::vector<std::vector<uint16_t>> results(2, std::vector<uint16_t>(static_cast<size_t>(device.y.size())));
  RETURN_IF_ERROR(Poison(device.y));
  RETURN_IF_ERROR(kernels->Launch(binding, stream.get()));
  RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(stream.get()), "the launch"));
  RETURN_IF_ERROR(CopyToHost(device.y, results[0].data()));
  ASSIGN_OR_RETURN(const OwnedGraphExec graph,
                   CaptureGraph(stream.get(), [&] { return kernels->Launch(binding, stream.get()); }));
  for (int replay = 0; replay < 2; ++replay) {
    RETURN_IF_ERROR(Poison(device.y));
    RETURN_IF_ERROR(CudaStatus(cudaGraphLaunch(graph.get(), stream.get()), "the replay"));
    RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(stream.get()), "the replay"));
  }
  RETURN_IF_ERROR(CopyToHost(device.y, results[1].data()));
  return results;
}

std::string Name(const testing::TestParamInfo<Named>& info) { return info.param.name; }

class ExpertMlpGpuTest : public testing::TestWithParam<Named> {
 protected:
  void SetUp() override {
    if (!Gpu().ok()) GTEST_SKIP() << Gpu().status();
    if (const absl::Status possible = ExpertMlpGpu::Check(**Gpu(), GetParam().shape); !possible.ok()) {
      GTEST_SKIP() << possible;
    }
    // Fresh inputs in each run; the name tells which, so that a failure can be looked at again.
    seed_ = std::to_string(std::chrono::system_clock::now().time_since_epoch().count());
    RecordProperty("inputs", seed_);
  }
  std::string seed_;
};

// bf16 operands: errors between 1e-3 and 1e-2 of the result's norm; both roundings of an fp8 case are in the reference.
TEST_P(ExpertMlpGpuTest, IsTheReferenceInFloat64) {
  const Case mlp = DrawCase(GetParam().shape, seed_);
  const auto results = Execute(GetParam(), mlp);
  ASSERT_TRUE(results.ok()) << results.status();
  const std::vector<double> reference = Reference(mlp, Rounding::kAsSpecified);
  for (const std::vector<uint16_t>& y : *results) EXPECT_LT(RelativeError(y, reference), 1e-2) << seed_;
}

TEST_P(ExpertMlpGpuTest, WritesEveryRowOfTokens) {
  const Case mlp = DrawCase(GetParam().shape, seed_);
  const auto results = Execute(GetParam(), mlp);
  ASSERT_TRUE(results.ok()) << results.status();
  std::vector<uint16_t> twin(static_cast<size_t>(mlp.layout.rows() * mlp.shape.hidden), kPoison);
  ExpertMlpOnCpu(mlp.shape, mlp.inputs(), twin.data());
  std::vector<double> expected(twin.size());
  std::transform(twin.begin(), twin.end(), expected.begin(),
                 [](uint16_t bits) { return static_cast<double>(FloatOfBf16(bits)); });
  for (const std::vector<uint16_t>& y : *results) {
    for (size_t i = 0; i < y.size(); ++i) {
      if (twin[i] == kPoison) continue;  // Padding.
      ASSERT_NE(y[i], kPoison) << "value " << i << " was not written";
    }
    EXPECT_LT(RelativeError(y, expected), 1e-2) << seed_;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, ExpertMlpGpuTest,
    testing::Values(
        Named{"Bf16", {.hidden = 256, .inter = 144, .values = BF16, .tokens_per_slot = {5, 0, 1, 70}}},
        Named{"Bf16FourStreams",
              {.hidden = 256, .inter = 128, .values = BF16, .tokens_per_slot = {0, 3, 0, 64, 9, 1, 33, 0, 0, 17}},
              ExpertMlpGpu::Calls::kPerSlot,
              4},
        Named{"Bf16LastSlotsEmpty",
              {.hidden = 128, .inter = 128, .values = BF16, .tokens_per_slot = {2, 0, 0, 0}},
              ExpertMlpGpu::Calls::kPerSlot,
              8},
        Named{"Fp8", {.hidden = 256, .inter = 128, .values = FP8, .tokens_per_slot = {0, 5, 33, 0, 66}}},
        Named{"Fp8FourStreams",
              {.hidden = 384, .inter = 256, .values = FP8, .tokens_per_slot = {16, 1, 0, 40, 17, 4}},
              ExpertMlpGpu::Calls::kPerSlot,
              4}),
    Name);

INSTANTIATE_TEST_SUITE_P(Grouped, ExpertMlpGpuTest,
                         testing::Values(Named{
                             "Bf16",
                             {.hidden = 256, .inter = 128, .values = BF16, .tokens_per_slot = {0, 3, 0, 64, 9, 1, 33}},
                             ExpertMlpGpu::Calls::kGrouped,
                             1}),
                         Name);

// DeepSeek-V3's experts, in all ways that there are: they agree, and the log has the time of each.
class DeepSeekV3ExpertsGpuTest : public testing::TestWithParam<std::tuple<NumberType, int>> {};

TEST_P(DeepSeekV3ExpertsGpuTest, EveryWayGivesTheSame) {
  if (!Gpu().ok()) GTEST_SKIP() << Gpu().status();
  const auto [values, most_tokens] = GetParam();
#ifdef EPSIM_GPU_ON_CPU  // As much as the stand-in can do.
  const int64_t hidden = 256, inter = 128;
  const int tokens = std::min(most_tokens, 5), replays = 1;
#else
  const int64_t hidden = 7168, inter = 2048;
  const int tokens = most_tokens, replays = 11;
#endif
  const ExpertMlpShape shape = {
      .hidden = hidden, .inter = inter, .values = values, .tokens_per_slot = std::vector<int>(8, tokens)};
  if (const absl::Status possible = ExpertMlpGpu::Check(**Gpu(), shape); !possible.ok()) GTEST_SKIP() << possible;
  const absl::Status status = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(GraphTimer timer, GraphTimer::Create());
    const ExpertMlpLayout layout(shape);
    const auto draw = [&](int64_t count, int64_t scale_count, float largest, uint64_t seed,
                          DeviceBuffer<uint8_t>* matrix, DeviceBuffer<float>* scales) -> absl::Status {
      ASSIGN_OR_RETURN(*matrix, DeviceBuffer<uint8_t>::Allocate(count * (values == FP8 ? 1 : 2)));
      if (values == BF16) {
        return DrawBf16(reinterpret_cast<uint16_t*>(matrix->data()), count, -largest, largest, seed, timer.stream());
      }
      ASSIGN_OR_RETURN(*scales, DeviceBuffer<float>::Allocate(scale_count));
      RETURN_IF_ERROR(DrawFp8(matrix->data(), count, seed, timer.stream()));
      return DrawFloats(scales->data(), scale_count, 0.5f * largest / 448, 1.5f * largest / 448, seed + 1,
                        timer.stream());
    };
    OnDevice device;
    RETURN_IF_ERROR(
        draw(layout.rows() * shape.hidden, layout.row_scales(shape.hidden), 2, 1, &device.x, &device.x_scales));
    RETURN_IF_ERROR(draw(8 * 2 * shape.inter * shape.hidden, 8 * WeightScales(2 * shape.inter, shape.hidden), 0.02f, 3,
                         &device.gate_up, &device.gate_up_scales));
    RETURN_IF_ERROR(draw(8 * shape.hidden * shape.inter, 8 * WeightScales(shape.hidden, shape.inter), 0.04f, 5,
                         &device.down, &device.down_scales));
    ASSIGN_OR_RETURN(device.y, DeviceBuffer<uint16_t>::Allocate(layout.rows() * shape.hidden));
    RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(timer.stream()), "random experts"));
    std::vector<double> first;
    for (const auto& [calls, streams] :
         {std::pair(ExpertMlpGpu::Calls::kPerSlot, 1), std::pair(ExpertMlpGpu::Calls::kPerSlot, 2),
          std::pair(ExpertMlpGpu::Calls::kPerSlot, 4), std::pair(ExpertMlpGpu::Calls::kPerSlot, 8),
          std::pair(ExpertMlpGpu::Calls::kGrouped, 1)}) {
      const bool grouped = calls == ExpertMlpGpu::Calls::kGrouped;
      if (grouped && values == FP8) continue;
      ASSIGN_OR_RETURN(const auto mlp, ExpertMlpGpu::Create(**Gpu(), shape, calls, streams));
      ASSIGN_OR_RETURN(const int binding, mlp->Bind(device.inputs(), device.y.data()));
      RETURN_IF_ERROR(mlp->Launch(binding, timer.stream()));
      RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(timer.stream()), "the launch"));
      ASSIGN_OR_RETURN(const OwnedGraphExec graph,
                       CaptureGraph(timer.stream(), [&] { return mlp->Launch(binding, timer.stream()); }));
      RETURN_IF_ERROR(Poison(device.y));
      ASSIGN_OR_RETURN(std::vector<double> times, timer.Replay(graph.get(), replays));
      std::sort(times.begin(), times.end());
#ifndef EPSIM_GPU_ON_CPU  // Whose times are none.
      std::cout << NumberType_Name(values) << " 8x" << tokens << (grouped ? ", grouped call" : ", a call per product")
                << ", " << streams << " streams: " << times[times.size() / 2] << " us" << std::endl;
#endif
      std::vector<uint16_t> y(static_cast<size_t>(device.y.size()));
      RETURN_IF_ERROR(CopyToHost(device.y, y.data()));
      std::vector<double> mine(y.size(), std::nan(""));  // Without padding.
      for (int64_t slot = 0; slot < layout.slots(); ++slot) {
        const int64_t begin = layout.row_begin(slot) * shape.hidden;
        for (int64_t i = begin; i < begin + tokens * shape.hidden; ++i) {
          mine[static_cast<size_t>(i)] = static_cast<double>(FloatOfBf16(y[static_cast<size_t>(i)]));
        }
      }
      if (first.empty()) first = mine;
      EXPECT_LT(RelativeError(y, first), 1e-2) << "in " << streams << " streams" << (grouped ? ", grouped" : "");
    }
    return absl::OkStatus();
  }();
  EXPECT_TRUE(status.ok()) << status;
}

INSTANTIATE_TEST_SUITE_P(Tokens, DeepSeekV3ExpertsGpuTest,
                         testing::Combine(testing::Values(BF16, FP8), testing::Values(512, 1)), [](const auto& info) {
                           return NumberType_Name(std::get<0>(info.param)) + "_8x" +
                                  std::to_string(std::get<1>(info.param));
                         });

}  // namespace
}  // namespace epsim
