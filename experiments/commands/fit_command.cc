// `epsim fit`: the timing of libraries from measured cases.
#include <filesystem>
#include <iostream>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "engine/status_macros.h"
#include "engine/text_proto.h"
#include "engine/whole_file.h"
#include "experiments/accuracy/fit.h"
#include "experiments/commands/commands.h"
#include "models/timing/library_timing.h"

namespace epsim {
namespace {

struct FitFlags {
  std::string cases, plan, library, out;
};

std::string AccuracyLine(const char* what, const Accuracy& accuracy) {
  return absl::StrFormat("  %-24s median %7s  90 %% %7s  bias %7s  worst %7s  %s\n", what, Percent(accuracy.median),
                         Percent(accuracy.ninetieth), Percent(accuracy.bias), Percent(accuracy.worst),
                         accuracy.worst_id);
}

std::string FamilyNames(const FitGroup& group) {
  return absl::StrJoin(group.family(), ", ",
                       [](std::string* out, const FitGroup::Family& family) { out->append(family.name()); });
}

std::string FitText(const FitGroup& group, const Fit& fit) {
  std::string text = absl::StrFormat("%s on %s: %d rows of %d setups, %d parameters\n", group.library(),
                                     FamilyNames(group), fit.fitted.size(), fit.groups, group.parameter_size());
  for (int i = 0; i < group.parameter_size(); ++i) {
    const FittedParameter& parameter = group.parameter(i);
    absl::StrAppendFormat(&text, "  %-45s %12s  %s\n", parameter.field(), fit.values[i], parameter.meaning());
  }
  text += AccuracyLine("fitted", AccuracyOf(fit.fitted));
  text += AccuracyLine("leave one setup out", AccuracyOf(fit.left_out));
  return text + "\n";
}

// One file a library, as the catalogue has them: its entries, with those that were fitted replaced.
absl::Status Write(const std::string& folder, const std::set<std::string>& libraries, const Timings& timings) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  std::vector<std::unique_ptr<WholeFile>> files;
  for (const CatalogueFile& shipped : TimingCatalogue()) {
    if (!libraries.contains(std::string(shipped.name))) continue;
    TimingFile timing_file;
    RETURN_IF_ERROR(ParseTextProto(shipped.text, shipped.path, &timing_file));
    for (LibraryTiming& timing : *timing_file.mutable_timing()) {
      const auto found = timings.find({std::string(shipped.name), timing.family()});
      if (found != timings.end()) timing = found->second;
    }
    ASSIGN_OR_RETURN(std::unique_ptr<WholeFile> file,
                     WholeFile::Create(absl::StrCat(folder, "/", std::string(shipped.name), ".txtpb")));
    file->Write(PrintTextProto(timing_file));
    files.push_back(std::move(file));
  }
  return WholeFile::CommitAll(files);
}

absl::Status FitAll(const FitFlags& flags, const StopToken& stop) {
  ASSIGN_OR_RETURN(const std::vector<Case> cases, ReadCases(flags.cases));
  FitPlan plan;
  if (flags.plan.empty()) {  // Of what ships, what the cases are about.
    const FitPlan shipped = ShippedFitPlan();
    for (const FitGroup& group : shipped.fit()) {
      if (HasRows(group, cases)) *plan.add_fit() = group;
    }
    if (plan.fit().empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(flags.cases, ": the plan that ships fits nothing to such cases; give a --plan"));
    }
  } else {
    RETURN_IF_ERROR(LoadTextProto(flags.plan, &plan));
  }
  Timings timings;
  std::vector<PredictedCase> left_out;
  std::string text;
  std::set<std::string> libraries, fitted;
  for (const FitGroup& group : plan.fit()) {
    libraries.insert(group.library());
    if (!flags.library.empty() && group.library() != flags.library) continue;
    Progress progress(absl::StrCat("fit ", group.library(), " on ", FamilyNames(group)), 1000);
    ASSIGN_OR_RETURN(const Fit fit, FitTimings(group, cases, &timings, stop, &progress));
    text += FitText(group, fit);
    fitted.insert(group.library());
    left_out.insert(left_out.end(), fit.left_out.begin(), fit.left_out.end());
  }
  if (left_out.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--library ", flags.library, ": not in the plan; it has ", absl::StrJoin(libraries, ", ")));
  }
  if (!flags.out.empty()) RETURN_IF_ERROR(Write(flags.out, fitted, timings));
  const std::string skew = SkewTable(left_out);
  std::cout << text << "leave one setup out, all fits:\n"
            << AccuracyTable(left_out) << (skew.empty() ? "" : "\nby the balancedness of tokens over ranks:\n") << skew;
  return absl::OkStatus();
}

}  // namespace

void AddFitCommand(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<FitFlags>();
  CLI::App* command = app.add_subcommand("fit", "fit the timing of libraries to measured cases");
  command->add_option("CASES", flags->cases, "a file of cases, one JSON object a line")->required();
  command->add_option("--plan", flags->plan, "what to fit on which cases (FitPlan, .txtpb); default: as shipped");
  command->add_option("--library", flags->library, "only the fits of this library");
  command->add_option("--out", flags->out, "write the fitted timings to this folder, as the catalogue has them");
  command->callback(
      [flags, &invocation] { invocation.action = [flags, stop = invocation.stop] { return FitAll(*flags, stop); }; });
}

}  // namespace epsim
