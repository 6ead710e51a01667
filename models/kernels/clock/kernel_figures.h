// How fast the kernels of this folder are on one GPU, beside what that GPU can do: each time against a floor, which
// follows from the bytes that must be moved or the products that must be computed and from the rates measured on the
// same GPU, and against the ratio that is aimed at.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/kernels/clock/kernel_clock.h"
#include "models/kernels/clock/kernel_work.pb.h"

namespace epsim {

// Why a ceiling is not known.
struct NoCeiling {
  std::string name, problem;
  bool failed = false;  // The GPU can do it, and yet it failed.
};

// What the GPU can do at best, as measured; 0 where that is not known.
struct GpuCeilings {
  double copy_bytes_per_us = 0;  // In its memory, bytes read plus bytes written.
  double bf16_flops_per_us = 0;  // A dense product of 8192 x 8192 x 8192: 2 m n k operations.
  double fp8_flops_per_us = 0;
  double to_device_bytes_per_us = 0;  // Over PCIe, pinned.
  double from_device_bytes_per_us = 0;
  double launch_us = 0;  // An empty kernel in a graph of many.
  std::vector<NoCeiling> unknown;
};

struct KernelFigure {
  std::string name;
  KernelTime time;
  double floor_us = 0;  // 0: none is known.
  double most = 0;      // The ratio of time to floor that is aimed at; 0: none.
  std::string items;    // What a launch handles: "tokens", "batches".
  double items_per_us = 0;
  std::string problem;  // Why there is no time; empty: there is.
  bool failed = false;  // The GPU can do the work, and yet it failed.

  double ratio() const { return floor_us > 0 ? time.median_us() / floor_us : 0; }
  // Whether there are a time, an aim and a ceiling that says how far apart they are.
  bool judged() const { return most > 0 && problem.empty() && floor_us > 0; }
  bool missed() const { return judged() && ratio() > most; }
};

struct KernelFigures {
  Hardware hardware;
  GpuCeilings ceilings;
  std::vector<KernelFigure> kernels;
};

// Measures the ceilings, then:
//   expert choice, 4096 tokens of 256 experts, top-8, capacity 1.25, fused: within 3 floors; and put together plainly
//   router, 8192 tokens of 256 experts, top-8, softmax, and sigmoid with 4 of 8 groups: within 2
//   expert MLP of DeepSeek-V3, 8 experts with 512 tokens each: within 1 / 0.6 of the products at the dense rate; with
//     one token each, against reading the weights
//   permute of 4096 tokens to 8 slots each, 7168 bf16 values, and back: within 1 / 0.7
//   co-occurrence of 8192 tokens of 256 experts, top-8, and the Monte-Carlo load of 32 chips: no floor, a throughput
// Fails where the copies, the bf16 products or the launches that are ceilings cannot be measured; without fp8 or PCIe
// it goes on.
absl::StatusOr<KernelFigures> MeasureKernels(KernelClock& clock);

// A table for people, and JSON for programs.
std::string FiguresTable(const KernelFigures& figures);
std::string FiguresJson(const KernelFigures& figures);

}  // namespace epsim
