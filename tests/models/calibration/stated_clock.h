// A GPU whose kernels take what formulas say, for tests of everything that measures.  The formulas are not those of the
// cost models: bytes and operations overlap imperfectly, small transfers do not reach the memory's bandwidth, and work
// comes in tiles of 128 rows, which run in waves.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/random_stream.h"
#include "models/calibration/calibration_table.h"
#include "models/kernels/clock/kernel_clock.h"
#include "models/number_type.h"

namespace epsim {

struct StatedGpu {
  double bandwidth = 4.8e12, bf16 = 989e12, fp8 = 1978e12;  // Peaks, as of an H200.
  double launch_us = 2;
  double noise = 0;  // Times are within this share of the formula, the same for the same work.
  bool has_fp4 = false;
  std::string name = "Stated GPU", driver = "1.0";
};

class StatedClock final : public KernelClock {
 public:
  explicit StatedClock(StatedGpu gpu = {}) : gpu_(std::move(gpu)) {
    hardware_.set_gpu(gpu_.name);
    hardware_.set_compute_capability(90);
    hardware_.set_sms(132);
    hardware_.set_memory_bytes(uint64_t{141} << 30);
    hardware_.set_driver(gpu_.driver);
    hardware_.set_cuda("13.0");
    hardware_.set_cublas("13.1.0");
  }

  const Hardware& hardware() const override { return hardware_; }
  absl::Status CanImplement(const KernelWork& work) const override {
    if (work.has_expert_mlp() && IsFourBit(work.expert_mlp().weights()) && !gpu_.has_fp4) {
      return absl::InvalidArgumentError("no units for 4 bit");
    }
    return absl::OkStatus();
  }
  absl::StatusOr<KernelTime> Time(const KernelWork& work) override {
    ++calls;
    if (on_call != nullptr) on_call(calls);
    if (calls >= fails_at && calls < fails_at + failures) return failure;
    double us = Microseconds(work);
    RandomStream random(7, WorkKey(work));
    us *= 1 + gpu_.noise * (2 * random.Unit() - 1);
    KernelTime time;
    time.set_median_us(us);
    time.set_lower_quartile_us(us * 0.99);
    time.set_upper_quartile_us(us * 1.01);
    time.set_repeats(20);
    return time;
  }

  // Without noise.
  double Microseconds(const KernelWork& work) const {
    if (work.has_launch()) return gpu_.launch_us * work.launch().kernels();
    if (work.has_device_copy()) return gpu_.launch_us + Moved(2.0 * work.device_copy().size_bytes());
    if (work.has_host_copy()) return 5 + 1e6 * work.host_copy().size_bytes() / 55e9;
    if (work.has_router()) {
      return 2 * gpu_.launch_us + Moved(work.router().tokens() * (4.0 * work.router().experts() + 64));
    }
    if (work.has_permute()) {
      const PermuteWork& p = work.permute();
      return gpu_.launch_us +
             Moved(static_cast<double>(p.tokens()) * (1 + p.top_k()) * ActivationBytes(p.hidden(), p.values()).count());
    }
    if (work.has_gemm()) return 3 + Product(work.gemm());
    if (work.has_expert_mlp()) return Experts(work.expert_mlp());
    return 10;
  }

  int calls = 0;
  int fails_at = -1, failures = 1;  // From that call on so many fail.
  absl::Status failure = absl::InternalError("the device fell off the bus");
  std::function<void(int)> on_call;

 private:
  // Half of the bandwidth at 2 MB.
  double Moved(double bytes) const { return 1e6 * (bytes + 2e6 * bytes / (bytes + 2e6)) / (0.9 * gpu_.bandwidth); }
  double Peak(NumberType type) const {
    return IsEightBit(type) ? gpu_.fp8 : IsFourBit(type) ? 2 * gpu_.fp8 : gpu_.bf16;
  }
  static double Both(double a, double b) { return std::pow(std::pow(a, 4) + std::pow(b, 4), 0.25); }

  double Product(const GemmWork& g) const {
    const double m = g.m(), n = g.n(), k = g.k();
    const double bytes = WeightBytes(g.n(), g.k(), g.values()).count() + m * (2 * n + 2 * k);
    const double tiles = std::ceil(m / 128) * std::ceil(n / 128);
    // A wave that is not full takes as long as a full one.
    const double waves = std::max(std::ceil(tiles / 132), 0.3 + tiles / 132);
    const double flops = waves * 132 * 2 * 128 * 128 * k;
    return Both(Moved(bytes), 1e6 * flops / (0.75 * Peak(g.values())));
  }

  double Experts(const ExpertMlpWork& e) const {
    double bytes = 0, tiles = 0;
    for (const uint32_t tokens : e.tokens_per_slot()) {
      if (tokens == 0) continue;
      bytes += WeightBytes(3 * e.inter(), e.hidden(), e.weights()).count();
      bytes += tokens * (2.0 * e.hidden() + ActivationBytes(e.hidden(), e.activations()).count() + 8.0 * e.inter());
      tiles += std::ceil(tokens / 128.0);
    }
    if (tiles == 0) return 12;
    const double flops = tiles * 128 * 6.0 * e.hidden() * e.inter();
    return 16 + Both(Moved(bytes), 1e6 * flops / (0.7 * Peak(Wider(e.weights(), e.activations()))));
  }

  const StatedGpu gpu_;
  Hardware hardware_;
};

}  // namespace epsim
