#include "experiments/accuracy/kernel_timing.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "platforms/cluster.h"

namespace epsim {

absl::StatusOr<KernelTiming> KernelTiming::Create(const Case& measured) {
  if (measured.metric != "time_us") {
    return absl::UnimplementedError(absl::StrCat("metric ", measured.metric, " is not predicted"));
  }
  const absl::StatusOr<PlatformSpec> platform = FindPlatform(measured.platform);
  if (!platform.ok()) return absl::UnimplementedError(platform.status().message());
  KernelTiming result;
  result.gpu_ = platform->gpu();
  RooflineConfig config;
  if (measured.library == "vllm_triton") config.set_gemm_library(RooflineConfig::TRITON);
  ASSIGN_OR_RETURN(result.catalogue_, CompleteRooflineConfig(config, result.gpu_, nullptr));
  return result;
}

absl::StatusOr<GpuRates> KernelTiming::Rates(const LibraryTiming* timing) const {
  RooflineConfig config = catalogue_;
  if (timing != nullptr) {
    if (gemm_library() == RooflineConfig::DEEP_GEMM && timing->has_deep_gemm()) {
      *config.mutable_gemm() = timing->deep_gemm();
    }
    if (gemm_library() == RooflineConfig::TRITON && timing->has_triton()) *config.mutable_gemm() = timing->triton();
    if (timing->has_flash_attention()) *config.mutable_attention() = timing->flash_attention();
  }
  return MakeGpuRates(config, gpu_);
}

absl::StatusOr<NumberType> NumberTypeField(const Case& measured, const char* name) {
  ASSIGN_OR_RETURN(const std::string text, TextField(measured, name));
  if (text == "bf16") return BF16;
  if (text == "fp8_block" || text == "fp8") return FP8;
  if (text == "nvfp4") return NVFP4;
  if (text == "mxfp8") return MXFP8;
  if (text == "mxfp4") return MXFP4;
  return absl::UnimplementedError(absl::StrCat(name, " \"", text, "\" is not modelled"));
}

}  // namespace epsim
