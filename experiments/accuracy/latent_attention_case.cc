#include "experiments/accuracy/latent_attention_case.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "experiments/accuracy/kernel_timing.h"
#include "models/catalogue.h"
#include "models/costs/roofline_attention.h"

namespace epsim {
namespace {

class LatentAttentionCase : public CaseModel {
 public:
  static absl::StatusOr<std::unique_ptr<CaseModel>> Create(const Case& measured) {
    auto result = std::make_unique<LatentAttentionCase>();
    ASSIGN_OR_RETURN(result->timing_, KernelTiming::Create(measured));
    ASSIGN_OR_RETURN(const std::string scope, TextField(measured, "scope"));
    const bool decode = measured.kind == "mla_decode";
    result->core_ = scope == "core";
    if (!result->core_ && scope != "attention_block") {
      return absl::UnimplementedError(absl::StrCat("scope \"", scope, "\" is not modelled"));
    }
    if (result->core_ && !decode) return absl::UnimplementedError("prefill attention proper is part of a block");
    ASSIGN_OR_RETURN(const int64_t heads, IntegerField(measured, "heads", 1, 4096));
    ASSIGN_OR_RETURN(const int64_t batch, IntegerField(measured, "batch", 1, 1 << 20));
    ASSIGN_OR_RETURN(const int64_t length, IntegerField(measured, decode ? "kv_len" : "isl", decode ? 1 : 2, 1 << 20));
    ASSIGN_OR_RETURN(result->kv_cache_, NumberTypeField(measured, "kv_dtype"));
    if (!result->core_) {
      ASSIGN_OR_RETURN(result->weights_, NumberTypeField(measured, "gemm_dtype"));
    }
    ASSIGN_OR_RETURN(result->model_, FindModel("deepseek-v3"));
    result->model_.set_heads(static_cast<uint32_t>(heads));
    result->load_ = {.tokens = decode ? batch : batch * length,
                     .sequences = batch,
                     .decode_tokens = decode ? batch : 0,
                     .attended_tokens = decode ? batch * length : batch * length * (length + 1) / 2,
                     .context_tokens = batch * length,
                     .output_tokens = batch};
    result->group_ = absl::StrCat(measured.platform, "/", measured.kind, "/", scope, "/heads", heads, "/batch", batch,
                                  "/length", length);
    return result;
  }

  absl::StatusOr<double> Predict(const LibraryTiming* timing) override {
    ASSIGN_OR_RETURN(const GpuRates rates, timing_.Rates(timing));
    const AttentionWork work = SplitAttention(load_);
    if (core_) {
      return LatentDecodePicoseconds(model_, rates, kv_cache_, work.decode_tokens, work.decode_context) / 1e6;
    }
    return NewContextAttention(model_, rates, weights_, kv_cache_)->Picoseconds(work) / 1e6;
  }

  const std::string& group() const override { return group_; }

 private:
  KernelTiming timing_;
  ModelSpec model_;
  NumberType weights_{}, kv_cache_{};
  bool core_ = false;
  AttentionLoad load_;
  std::string group_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CaseModel>> NewLatentAttentionCase(const Case& measured) {
  return LatentAttentionCase::Create(measured);
}

}  // namespace epsim
