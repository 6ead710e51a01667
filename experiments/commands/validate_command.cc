// `epsim validate`: how far predictions are from measurements.
#include <algorithm>
#include <iostream>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/progress.h"
#include "engine/status_macros.h"
#include "engine/whole_file.h"
#include "experiments/accuracy/accuracy_report.h"
#include "experiments/accuracy/case_model.h"
#include "experiments/commands/commands.h"

namespace epsim {
namespace {

struct ValidateFlags {
  std::string cases, kind, csv;
};

absl::Status Validate(const ValidateFlags& flags, const StopToken& stop) {
  ASSIGN_OR_RETURN(std::vector<Case> cases, ReadCases(flags.cases));
  if (!flags.kind.empty()) {
    std::set<std::string> kinds;
    for (const Case& measured : cases) kinds.insert(measured.kind);
    if (!kinds.contains(flags.kind)) {
      return absl::InvalidArgumentError(absl::StrCat("--kind ", flags.kind, ": ", flags.cases,
                                                     " has no case of it; it has ", absl::StrJoin(kinds, ", ")));
    }
    std::erase_if(cases, [&](const Case& measured) { return measured.kind != flags.kind; });
  }
  std::vector<PredictedCase> predicted;
  {
    Progress progress("validate", static_cast<int64_t>(cases.size()));
    ASSIGN_OR_RETURN(predicted, PredictCases(cases, stop, &progress));
  }
  if (!flags.csv.empty()) {
    ASSIGN_OR_RETURN(const std::unique_ptr<WholeFile> file, WholeFile::Create(flags.csv));
    file->Write(AccuracyCsv(predicted));
    RETURN_IF_ERROR(file->Commit());
  }
  const std::string skew = SkewTable(predicted);
  std::cout
      << AccuracyTable(predicted) << (skew.empty() ? "" : "\nby the balancedness of tokens over ranks:\n") << skew
      << "\nThe catalogue was fitted to published cases (experiments/validation); for errors on setups that a fit has "
         "not seen: epsim fit\n";
  return absl::OkStatus();
}

}  // namespace

void AddValidateCommand(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<ValidateFlags>();
  CLI::App* command = app.add_subcommand("validate", "predict measured cases and say how far off the predictions are");
  command->add_option("CASES", flags->cases, "a file of cases, one JSON object a line")->required();
  command->add_option("--kind", flags->kind, "only cases of this kind");
  command->add_option("--csv", flags->csv, "write every case to this file");
  command->callback(
      [flags, &invocation] { invocation.action = [flags, stop = invocation.stop] { return Validate(*flags, stop); }; });
}

}  // namespace epsim
