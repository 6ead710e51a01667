#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "engine/status_macros.h"
#include "engine/text_proto.h"
#include "engine/whole_file.h"
#include "experiments/answer.h"
#include "experiments/commands/commands.h"
#include "experiments/commands/experiment_flags.h"
#include "experiments/run.h"

namespace epsim {
namespace {

// One --vary: a field and the values that it takes in turn.
struct Variation {
  std::string path;
  std::vector<std::string> values;
};

absl::StatusOr<Variation> ParseVariation(const std::string& text) {
  const std::vector<std::string> halves = absl::StrSplit(text, absl::MaxSplits('=', 1));
  if (halves.size() != 2 || halves[1].empty()) {
    return absl::InvalidArgumentError(absl::StrCat("--vary ", text, ": expected path.to.field=value,value..."));
  }
  return Variation{halves[0], absl::StrSplit(halves[1], ',')};
}

struct Case {
  std::string name;
  ExperimentRequest request;
};

// Every combination of the variations, the last varying fastest.
std::vector<Case> Cases(const ExperimentRequest& request, const std::vector<Variation>& variations) {
  std::vector<Case> cases = {{"", request}};
  for (const Variation& variation : variations) {
    std::vector<Case> next;
    for (const Case& base : cases) {
      for (const std::string& value : variation.values) {
        Case copy = base;
        copy.name = absl::StrCat(copy.name, copy.name.empty() ? "" : ", ",
                                 variation.path == "placement.policy" ? "" : variation.path + "=", value);
        copy.request.set.push_back(absl::StrCat(variation.path, "=", value));
        next.push_back(std::move(copy));
      }
    }
    cases = std::move(next);
  }
  return cases;
}

// A name that can be a folder's.
std::string FolderName(std::string name) {
  for (char& c : name) {
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '=' && c != '-') c = '_';
  }
  return name;
}

}  // namespace

void AddCompareCommand(CLI::App& app, Invocation& invocation) {
  struct Flags {
    ExperimentRequest request;
    RunOptions options;
    std::vector<std::string> vary;
    bool json = false, no_bound = false;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      app.add_subcommand("compare", "run an experiment with fields varied and print the alternatives in one table");
  AddExperimentFlags(command, &flags->request);
  AddRunFlags(command, &flags->options);
  command
      ->add_option("--vary", flags->vary,
                   "path.to.field=value,value...: the values to compare; every combination if repeated "
                   "(default: placement.policy=contiguous,eplb)")
      ->take_all()
      ->expected(1)
      ->allow_extra_args(false);
  command->add_flag("--no-bound", flags->no_bound,
                    "leave out the hindsight bound (the last placement, planned on the steps that are scored)");
  command->add_flag("--json", flags->json, "print the comparison as JSON");
  command->callback([flags, &invocation] {
    invocation.action = [flags, stop = invocation.stop]() -> absl::Status {
      if (flags->vary.empty()) flags->vary.push_back("placement.policy=contiguous,eplb");
      std::vector<Variation> variations;
      for (const std::string& text : flags->vary) {
        ASSIGN_OR_RETURN(Variation variation, ParseVariation(text));
        variations.push_back(std::move(variation));
      }
      // Placements last, so that what is compared stands together.
      std::stable_sort(variations.begin(), variations.end(), [](const Variation& a, const Variation& b) {
        return (a.path == "placement.policy") < (b.path == "placement.policy");
      });
      std::vector<Case> cases = Cases(flags->request, variations);
      if (!flags->no_bound && variations.back().path == "placement.policy") {
        const size_t group = variations.back().values.size();
        for (size_t end = cases.size(); end > 0; end -= group) {
          Case bound = cases[end - 1];
          bound.name += " (hindsight bound)";
          bound.request.set.push_back("planning.plan=hindsight");
          cases.insert(cases.begin() + end, std::move(bound));
        }
      }
      // All are resolved before the first runs: a wrong field costs no time.
      std::vector<ResolvedExperiment> resolved;
      for (const Case& c : cases) {
        ASSIGN_OR_RETURN(ResolvedExperiment experiment, ResolveExperiment(c.request));
        resolved.push_back(std::move(experiment));
      }
      std::vector<Alternative> alternatives;
      for (size_t i = 0; i < cases.size(); ++i) {
        RunOptions options = flags->options;
        options.stop = stop;
        options.progress_label = absl::StrCat(i + 1, "/", cases.size(), " ", cases[i].name);
        if (!options.out.empty()) {
          options.out = (std::filesystem::path(options.out) / FolderName(cases[i].name)).string();
        }
        ASSIGN_OR_RETURN(RunReport report, Run(resolved[i], options));
        alternatives.push_back({cases[i].name, std::move(report)});
      }
      const nlohmann::ordered_json comparison = ComparisonJson(alternatives);
      std::cout << (flags->json ? comparison.dump(2) + "\n" : ComparisonText(comparison));
      if (!flags->options.out.empty()) {
        const std::string path = (std::filesystem::path(flags->options.out) / "comparison.json").string();
        ASSIGN_OR_RETURN(const auto file, WholeFile::Create(path));
        file->Write(comparison.dump(2) + "\n");
        RETURN_IF_ERROR(file->Commit());
        std::cerr << "report files are in " << flags->options.out << ", one folder an alternative\n";
      }
      return absl::OkStatus();
    };
  });
}

}  // namespace epsim
