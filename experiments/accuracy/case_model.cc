#include "experiments/accuracy/case_model.h"

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "experiments/accuracy/all_to_all_case.h"
#include "experiments/accuracy/expert_layer_case.h"
#include "experiments/accuracy/gemm_case.h"
#include "experiments/accuracy/latent_attention_case.h"
#include "experiments/accuracy/nccl_case.h"

namespace epsim {

absl::StatusOr<std::unique_ptr<CaseModel>> NewCaseModel(const Case& measured) {
  if (measured.kind == "ep_all_to_all") return NewAllToAllCase(measured);
  if (measured.kind == "nccl") return NewNcclCase(measured);
  if (measured.kind == "dense_gemm") return NewDenseGemmCase(measured);
  if (measured.kind == "grouped_gemm") return NewGroupedGemmCase(measured);
  if (measured.kind == "moe_layer") return NewExpertLayerCase(measured);
  if (measured.kind == "fused_moe") return NewFusedMoeCase(measured);
  if (measured.kind == "mla_decode" || measured.kind == "mla_prefill") return NewLatentAttentionCase(measured);
  if (measured.kind == "latency" || measured.kind == "pcie") {
    return absl::UnimplementedError("the platform catalogue takes these as they are: inputs, not judged");
  }
  return absl::UnimplementedError("no model for this kind");
}

absl::StatusOr<std::vector<PredictedCase>> PredictCases(const std::vector<Case>& cases, const StopToken& stop,
                                                        Progress* progress) {
  std::vector<PredictedCase> predicted;
  for (const Case& measured : cases) {
    RETURN_IF_ERROR(stop.Check());
    if (progress != nullptr) progress->Set(static_cast<int64_t>(predicted.size()));
    PredictedCase next{.measured = &measured};
    const absl::StatusOr<std::unique_ptr<CaseModel>> model = NewCaseModel(measured);
    if (model.status().code() == absl::StatusCode::kUnimplemented) {
      next.unsupported = std::string(model.status().message());
    } else {
      RETURN_IF_ERROR(model.status());
      ASSIGN_OR_RETURN(next.predicted, (*model)->Predict(nullptr));
      next.balancedness = (*model)->balancedness();
    }
    predicted.push_back(std::move(next));
  }
  return predicted;
}

}  // namespace epsim
