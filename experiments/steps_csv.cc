#include "experiments/steps_csv.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace epsim {

StepsCsv::StepsCsv(WholeFile* file) : file_(file) {
  std::string line =
      "step,start_us,step_time_us,tokens,tokens_balancedness,expert_time_balancedness,busy,min_over_max,limiting_rank,"
      "limiting_layer,limiting_stage";
  for (int kind = 0; kind < kStageKinds; ++kind) {
    const std::string_view name = Name(static_cast<StageKind>(kind));
    absl::StrAppend(&line, ",", absl::string_view(name.data(), name.size()), "_us");
  }
  for (LinkClass link_class : kAllLinkClasses) {
    const std::string_view name = Name(link_class);
    absl::StrAppend(&line, ",", absl::string_view(name.data(), name.size()), "_bytes");
  }
  file_->Write(line + "\n");
}

void StepsCsv::Add(const StepFacts& facts) {
  const auto most = [](const auto& values) { return std::max_element(values.begin(), values.end()) - values.begin(); };
  const std::string_view stage = Name(static_cast<StageKind>(most(facts.by_stage)));
  std::string line = absl::StrFormat(
      "%d,%.6f,%.6f,%d,%.6f,%.6f,%.6f,%.6f,%d,%d,%s", facts.step, Microseconds(facts.start.time_since_epoch()),
      Microseconds(facts.finish - facts.start), facts.tokens, facts.tokens_balancedness, facts.expert_time_balancedness,
      facts.busy, facts.min_over_max, most(facts.by_rank), most(facts.by_layer),
      absl::string_view(stage.data(), stage.size()));
  for (Duration time : facts.by_stage) absl::StrAppendFormat(&line, ",%.6f", Microseconds(time));
  for (int64_t bytes : facts.bytes) absl::StrAppend(&line, ",", bytes);
  file_->Write(line + "\n");
}

}  // namespace epsim
