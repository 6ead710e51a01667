#include "models/kernels/clock/kernel_figures.h"

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/status_macros.h"
#include "models/calibration/work_times.h"
#include "models/number_type.h"
#include "nlohmann/json.hpp"

namespace epsim {
namespace {

constexpr uint32_t kHidden = 7168, kInter = 2048, kExperts = 256, kTopK = 8;  // DeepSeek-V3.

// A kernel that is measured, and what bounds it.
struct Aim {
  std::string name;
  KernelWork work;
  double floor_us = 0, most = 0;
  std::string items = {};
  double item_count = 0;
};

KernelWork Gemm(NumberType values, uint32_t size) {
  KernelWork work;
  GemmWork* gemm = work.mutable_gemm();
  gemm->set_m(size);
  gemm->set_n(size);
  gemm->set_k(size);
  gemm->set_values(values);
  return work;
}

// `per_launch` over the median time.
absl::StatusOr<double> Rate(KernelClock& clock, const KernelWork& work, double per_launch) {
  ASSIGN_OR_RETURN(const KernelTime time, Execute(work, &clock));
  return per_launch / time.median_us();
}

// The same, 0 where there is none: `unknown` then gets the reason.
double RateIfAny(KernelClock& clock, const char* name, const KernelWork& work, double per_launch,
                 std::vector<NoCeiling>* unknown) {
  const absl::StatusOr<double> rate = Rate(clock, work, per_launch);
  if (rate.ok()) return *rate;
  unknown->push_back({name, std::string(rate.status().message()), !IsRefusal(rate.status())});
  return 0;
}

absl::StatusOr<GpuCeilings> MeasureCeilings(KernelClock& clock) {
  constexpr uint64_t kCopy = uint64_t{1} << 30, kPcie = uint64_t{256} << 20;
  constexpr uint32_t kSize = 8192, kLaunches = 500;
  constexpr double kFlops = 2.0 * kSize * kSize * kSize;
  GpuCeilings ceilings;
  KernelWork copy;
  copy.mutable_device_copy()->set_size_bytes(kCopy);
  ASSIGN_OR_RETURN(ceilings.copy_bytes_per_us, Rate(clock, copy, 2.0 * kCopy));
  ASSIGN_OR_RETURN(ceilings.bf16_flops_per_us, Rate(clock, Gemm(BF16, kSize), kFlops));
  ceilings.fp8_flops_per_us = RateIfAny(clock, "fp8", Gemm(FP8, kSize), kFlops, &ceilings.unknown);
  KernelWork pcie;
  pcie.mutable_host_copy()->set_size_bytes(kPcie);
  ceilings.from_device_bytes_per_us = RateIfAny(clock, "PCIe from the GPU", pcie, kPcie, &ceilings.unknown);
  pcie.mutable_host_copy()->set_to_device(true);
  ceilings.to_device_bytes_per_us = RateIfAny(clock, "PCIe to the GPU", pcie, kPcie, &ceilings.unknown);
  KernelWork launch;
  launch.mutable_launch()->set_kernels(kLaunches);
  ASSIGN_OR_RETURN(const double kernels_per_us, Rate(clock, launch, kLaunches));
  ceilings.launch_us = 1 / kernels_per_us;
  return ceilings;
}

std::vector<Aim> Aims(const GpuCeilings& ceilings) {
  std::vector<Aim> aims;
  const auto copied = [&](double bytes) { return bytes / ceilings.copy_bytes_per_us; };
  for (const bool fused : {true, false}) {
    constexpr double kTokens = 4096;
    Aim aim = {.name = absl::StrCat("expert choice ", fused ? "fused" : "plain", " 4096x256 top-8"), .work = {}};
    ExpertChoiceWork* choice = aim.work.mutable_expert_choice();
    choice->set_tokens(kTokens);
    choice->set_experts(kExperts);
    choice->set_top_k(kTopK);
    choice->set_capacity(1.25);
    choice->set_fused(fused);
    aim.floor_us = copied(4 * kTokens * kExperts + 8 * kTokens * kTopK + 4 * kTokens);  // Scores; ids, weights, counts.
    aim.most = fused ? 3 : 0;
    aims.push_back(std::move(aim));
  }
  for (const bool sigmoid : {false, true}) {
    constexpr double kTokens = 8192;
    Aim aim = {.name = absl::StrCat("router ", sigmoid ? "sigmoid, groups" : "softmax", " 8192x256 top-8"), .work = {}};
    RouterWork* router = aim.work.mutable_router();
    router->set_tokens(kTokens);
    router->set_experts(kExperts);
    router->set_top_k(kTopK);
    router->set_scoring(sigmoid ? ModelSpec::SIGMOID : ModelSpec::SOFTMAX);
    if (sigmoid) {
      router->set_groups(8);
      router->set_top_groups(4);
    }
    aim.floor_us = copied(4 * kTokens * kExperts + 8 * kTokens * kTopK);
    aim.most = 2;
    aims.push_back(std::move(aim));
  }
  for (const NumberType values : {BF16, FP8}) {
    for (const uint32_t tokens : {512, 1}) {
      constexpr uint32_t kSlots = 8;
      Aim aim = {.name = absl::StrCat("expert MLP ", NumberType_Name(values), " 8x", tokens), .work = {}};
      ExpertMlpWork* mlp = aim.work.mutable_expert_mlp();
      mlp->set_hidden(kHidden);
      mlp->set_inter(kInter);
      mlp->set_weights(values);
      mlp->set_activations(values);
      for (uint32_t slot = 0; slot < kSlots; ++slot) mlp->add_tokens_per_slot(tokens);
      const double rate = values == FP8 ? ceilings.fp8_flops_per_us : ceilings.bf16_flops_per_us;
      if (tokens > 1) {
        aim.floor_us = rate > 0 ? 6.0 * kSlots * tokens * kHidden * kInter / rate : 0;
        aim.most = 1 / 0.6;
      } else {
        aim.floor_us =
            copied(static_cast<double>(kSlots) *
                   static_cast<double>(
                       (WeightBytes(2 * kInter, kHidden, values) + WeightBytes(kHidden, kInter, values)).count()));
      }
      aim.items = "tokens";
      aim.item_count = kSlots * tokens;
      aims.push_back(std::move(aim));
    }
  }
  for (const bool back : {false, true}) {
    constexpr double kTokens = 4096;
    Aim aim = {.name = absl::StrCat("permute ", back ? "back " : "", "4096 to 8 slots, 7168 bf16"), .work = {}};
    PermuteWork* permute = aim.work.mutable_permute();
    permute->set_tokens(kTokens);
    permute->set_top_k(kTopK);
    permute->set_slots(32);
    permute->set_hidden(kHidden);
    permute->set_values(BF16);
    permute->set_weighted_return(back);
    aim.floor_us = copied(2.0 * kHidden * kTokens * (1 + kTopK));
    aim.most = 1 / 0.7;
    aims.push_back(std::move(aim));
  }
  {
    constexpr uint32_t kTokens = 8192;
    Aim aim = {.name = "co-occurrence 8192x256 top-8", .work = {}, .items = "tokens", .item_count = kTokens};
    CoOccurrenceWork* co_occurrence = aim.work.mutable_co_occurrence();
    co_occurrence->set_tokens(kTokens);
    co_occurrence->set_experts(kExperts);
    co_occurrence->set_top_k(kTopK);
    aims.push_back(std::move(aim));
  }
  {
    constexpr uint32_t kBatches = 500'000;
    Aim aim = {.name = "sampled load 4 tokens, 32 chips", .work = {}, .items = "batches", .item_count = kBatches};
    SampledLoadWork* load = aim.work.mutable_sampled_load();
    load->set_batches(kBatches);
    load->set_tokens(4);
    load->set_experts(kExperts);
    load->set_top_k(kTopK);
    load->set_chips(32);
    aims.push_back(std::move(aim));
  }
  return aims;
}

KernelFigure Measure(KernelClock& clock, const Aim& aim) {
  KernelFigure figure = {.name = aim.name,
                         .time = {},
                         .floor_us = aim.floor_us,
                         .most = aim.most,
                         .items = aim.items,
                         .items_per_us = 0,
                         .problem = {},
                         .failed = false};
  const absl::StatusOr<KernelTime> time = Execute(aim.work, &clock);
  if (!time.ok()) {
    figure.problem = std::string(time.status().message());
    figure.failed = !IsRefusal(time.status());
    return figure;
  }
  figure.time = *time;
  if (aim.item_count > 0) figure.items_per_us = aim.item_count / time->median_us();
  return figure;
}

}  // namespace

absl::StatusOr<KernelFigures> MeasureKernels(KernelClock& clock) {
  KernelFigures figures;
  ASSIGN_OR_RETURN(figures.ceilings, MeasureCeilings(clock));
  figures.hardware = clock.hardware();
  for (const Aim& aim : Aims(figures.ceilings)) figures.kernels.push_back(Measure(clock, aim));
  return figures;
}

std::string FiguresTable(const KernelFigures& figures) {
  const auto& [hardware, ceilings, kernels] = figures;
  std::string text =
      absl::StrFormat("%s, compute capability %d.%d, driver %s, CUDA %s, cuBLAS %s, %d MHz\n", hardware.gpu(),
                      hardware.compute_capability() / 10, hardware.compute_capability() % 10,
                      hardware.driver().empty() ? "unknown" : hardware.driver(), hardware.cuda(), hardware.cublas(),
                      hardware.sm_clock_mhz());
  absl::StrAppendFormat(&text,
                        "ceilings: copy %.2f TB/s (read and written), bf16 %.0f TFLOP/s, fp8 %.0f TFLOP/s, PCIe to the "
                        "GPU %.1f GB/s, from it %.1f GB/s, launch %.2f us\n",
                        ceilings.copy_bytes_per_us / 1e6, ceilings.bf16_flops_per_us / 1e6,
                        ceilings.fp8_flops_per_us / 1e6, ceilings.to_device_bytes_per_us / 1e3,
                        ceilings.from_device_bytes_per_us / 1e3, ceilings.launch_us);
  for (const NoCeiling& unknown : ceilings.unknown) {
    absl::StrAppendFormat(&text, "no ceiling of %s%s: %s\n", unknown.name, unknown.failed ? ", FAILED" : "",
                          unknown.problem);
  }
  absl::StrAppendFormat(&text, "%-36s %10s %21s %10s %7s %7s  %s\n", "kernel", "median us", "quartiles us", "floor us",
                        "ratio", "aim", "");
  for (const KernelFigure& kernel : kernels) {
    if (!kernel.problem.empty()) {
      absl::StrAppendFormat(&text, "%-36s %s: %s\n", kernel.name, kernel.failed ? "FAILED" : "not measured",
                            kernel.problem);
      continue;
    }
    absl::StrAppendFormat(
        &text, "%-36s %10.2f %21s %10s %7s %7s  %s\n", kernel.name, kernel.time.median_us(),
        absl::StrFormat("%.2f to %.2f", kernel.time.lower_quartile_us(), kernel.time.upper_quartile_us()),
        kernel.floor_us > 0 ? absl::StrFormat("%.2f", kernel.floor_us) : "-",
        kernel.floor_us > 0 ? absl::StrFormat("%.2f", kernel.ratio()) : "-",
        kernel.most > 0 ? absl::StrFormat("%.2f", kernel.most) : "-",
        absl::StrCat(
            kernel.most == 0   ? ""
            : !kernel.judged() ? "no ceiling "
            : kernel.missed()  ? "missed "
                               : "met ",
            kernel.items_per_us > 0 ? absl::StrFormat("%.3g %s/s", kernel.items_per_us * 1e6, kernel.items) : ""));
  }
  return text;
}

std::string FiguresJson(const KernelFigures& figures) {
  using Json = nlohmann::ordered_json;
  const auto& [hardware, ceilings, kernels] = figures;
  Json json;
  json["hardware"] = {{"gpu", hardware.gpu()},
                      {"compute_capability", hardware.compute_capability()},
                      {"sms", hardware.sms()},
                      {"memory_bytes", hardware.memory_bytes()},
                      {"l2_bytes", hardware.l2_bytes()},
                      {"driver", hardware.driver()},
                      {"cuda", hardware.cuda()},
                      {"cublas", hardware.cublas()},
                      {"sm_clock_mhz", hardware.sm_clock_mhz()},
                      {"memory_clock_mhz", hardware.memory_clock_mhz()}};
  json["ceilings"] = {{"copy_bytes_per_s", ceilings.copy_bytes_per_us * 1e6},
                      {"bf16_flops_per_s", ceilings.bf16_flops_per_us * 1e6},
                      {"fp8_flops_per_s", ceilings.fp8_flops_per_us * 1e6},
                      {"to_device_bytes_per_s", ceilings.to_device_bytes_per_us * 1e6},
                      {"from_device_bytes_per_s", ceilings.from_device_bytes_per_us * 1e6},
                      {"launch_us", ceilings.launch_us}};
  for (const NoCeiling& unknown : ceilings.unknown) {
    json["no_ceiling"].push_back(
        {{"name", unknown.name}, {unknown.failed ? "failed" : "not_measured", unknown.problem}});
  }
  json["kernels"] = Json::array();
  for (const KernelFigure& kernel : kernels) {
    Json row = {{"name", kernel.name}};
    if (!kernel.problem.empty()) {
      row[kernel.failed ? "failed" : "not_measured"] = kernel.problem;
    } else {
      row["median_us"] = kernel.time.median_us();
      row["lower_quartile_us"] = kernel.time.lower_quartile_us();
      row["upper_quartile_us"] = kernel.time.upper_quartile_us();
      row["repeats"] = kernel.time.repeats();
      if (kernel.floor_us > 0) {
        row["floor_us"] = kernel.floor_us;
        row["ratio"] = kernel.ratio();
      }
      if (kernel.most > 0) {
        row["aimed_ratio"] = kernel.most;
        if (kernel.judged()) row["met"] = !kernel.missed();
      }
      if (kernel.items_per_us > 0) row[absl::StrCat(kernel.items, "_per_s")] = kernel.items_per_us * 1e6;
    }
    json["kernels"].push_back(std::move(row));
  }
  return json.dump(2) + "\n";
}

}  // namespace epsim
