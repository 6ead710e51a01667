#include <algorithm>
#include <cctype>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "engine/status_macros.h"
#include "experiments/answer.h"
#include "experiments/assembly.h"
#include "experiments/commands/commands.h"
#include "experiments/commands/experiment_flags.h"
#include "experiments/json_text.h"
#include "experiments/report_folder.h"
#include "experiments/run.h"

namespace epsim {
namespace {

constexpr char kPlacement[] = "placement.policy";

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

// Fields that say how load is balanced: alternatives that differ in these alone are compared with each other.
bool IsOfBalancing(const std::string& path) {
  for (const char* field :
       {"placement", "planning", "redundant_slots_per_rank", "replica_choice", "rebalance", "routing",
        "engine", "profiler"}) {
    if (path == field || absl::StartsWith(path, absl::StrCat(field, "."))) return true;
  }
  return false;
}

struct Case {
  std::string name;
  std::string setting;      // The fields that do not say how load is balanced: those compared have the same.
  std::string of_setting;   // What names of the setting begin with: "ranks=8, ".
  ExperimentRequest request;
};

// Every combination of the variations, the last varying fastest.
std::vector<Case> Cases(const ExperimentRequest& request, const std::vector<Variation>& variations) {
  std::vector<Case> cases = {{"", "", "", request}};
  for (const Variation& variation : variations) {
    std::vector<Case> next;
    for (const Case& base : cases) {
      for (const std::string& value : variation.values) {
        const std::string assignment = absl::StrCat(variation.path, "=", value);
        Case copy = base;
        // The last part of the path tells fields apart in nearly every comparison, and leaves room for the figures.
        const std::string field = variation.path.substr(variation.path.rfind('.') + 1);
        absl::StrAppend(&copy.name, copy.name.empty() ? "" : ", ",
                        variation.path == kPlacement ? value : absl::StrCat(field, "=", value));
        if (!IsOfBalancing(variation.path)) {
          absl::StrAppend(&copy.setting, assignment, "\n");
          copy.of_setting = copy.name + ", ";
        }
        copy.request.set.push_back(assignment);
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

absl::StatusOr<std::vector<Variation>> ParseVariations(const std::vector<std::string>& texts) {
  std::vector<Variation> variations;
  for (const std::string& text : texts) {
    ASSIGN_OR_RETURN(Variation variation, ParseVariation(text));
    for (const Variation& other : variations) {
      if (other.path == variation.path) {
        return absl::InvalidArgumentError(absl::StrCat("--vary ", text, ": ", variation.path, " is varied twice"));
      }
    }
    std::vector<std::string> values = variation.values;
    std::sort(values.begin(), values.end());
    if (const auto twice = std::adjacent_find(values.begin(), values.end()); twice != values.end()) {
      return absl::InvalidArgumentError(absl::StrCat("--vary ", text, ": ", *twice, " stands twice"));
    }
    variations.push_back(std::move(variation));
  }
  // Balancing last, so that what is compared stands together.
  std::stable_sort(variations.begin(), variations.end(), [](const Variation& a, const Variation& b) {
    return IsOfBalancing(a.path) < IsOfBalancing(b.path);
  });
  return variations;
}

// The experiment's own alternatives under each of `cases`, or contiguous and EPLB where it has none.
absl::StatusOr<std::vector<Case>> WithAlternatives(const ExperimentRequest& request, const std::vector<Case>& cases) {
  ASSIGN_OR_RETURN(const ResolvedExperiment resolved, ResolveExperiment(request));
  std::vector<Alternative> alternatives(resolved.experiment().alternatives().begin(),
                                        resolved.experiment().alternatives().end());
  if (alternatives.empty()) {
    for (const char* policy : {"contiguous", "eplb"}) {
      Alternative& alternative = alternatives.emplace_back();
      alternative.set_name(policy);
      alternative.add_set(absl::StrCat(kPlacement, "=", policy));
    }
  }
  std::vector<Case> all;
  for (const Case& base : cases) {
    for (const Alternative& alternative : alternatives) {
      const std::string name = alternative.name().empty() ? absl::StrJoin(alternative.set(), " ") : alternative.name();
      Case copy = base;
      absl::StrAppend(&copy.name, copy.name.empty() ? "" : ", ", name);
      for (const std::string& assignment : alternative.set()) {
        copy.request.set.push_back(assignment);
        if (!IsOfBalancing(assignment.substr(0, assignment.find('=')))) {
          absl::StrAppend(&copy.setting, assignment, "\n");
        }
      }
      all.push_back(std::move(copy));
    }
  }
  return all;
}

absl::StatusOr<std::vector<Case>> AllCases(const ExperimentRequest& request, const std::vector<std::string>& vary) {
  ASSIGN_OR_RETURN(const std::vector<Variation> variations, ParseVariations(vary));
  std::vector<Case> cases = Cases(request, variations);
  if (std::any_of(variations.begin(), variations.end(), [](const Variation& v) { return v.path == kPlacement; })) {
    return cases;
  }
  return WithAlternatives(request, cases);
}

// An alternative that is ready to run, and its folder in the report.
struct Prepared {
  Case c;
  ResolvedExperiment resolved;
  std::string out;
  bool perfect_balance = false;  // The bound of the others of its setting.
};

// Resolves and checks every case before the first runs: a wrong field costs no time.  With `bound`, adds to each
// setting the oracle, with the slots of its first placement that goes by load, and the perfect balance.
absl::StatusOr<std::vector<Prepared>> Prepare(std::vector<Case> cases, bool bound, const std::string& out) {
  std::vector<Prepared> prepared;
  const auto add = [&](Case c, bool perfect_balance) -> absl::Status {
    ASSIGN_OR_RETURN(ResolvedExperiment resolved, ResolveExperiment(c.request));
    RETURN_IF_ERROR(Assemble(resolved).status());
    std::string folder = out.empty() ? "" : (std::filesystem::path(out) / FolderName(c.name)).string();
    for (const Prepared& other : prepared) {
      if (!out.empty() && other.out == folder) {
        return absl::InvalidArgumentError(absl::StrCat("--out: the alternatives \"", other.c.name, "\" and \"", c.name,
                                                       "\" need the same folder ", folder,
                                                       "; compare them without --out"));
      }
    }
    prepared.push_back({std::move(c), std::move(resolved), std::move(folder), perfect_balance});
    return absl::OkStatus();
  };
  // Of the setting at hand: the first placement that goes by load, and any that fails no ranks.  An engine's options decide
  // what the bounds would have to change.
  std::optional<Case> to_bound, to_balance;
  for (size_t i = 0; i < cases.size(); ++i) {
    RETURN_IF_ERROR(add(cases[i], false));
    const Experiment& experiment = prepared.back().resolved.experiment();
    if (!experiment.has_engine() && experiment.elastic().failures().empty()) {
      const bool by_load = GoesByLoad(experiment.placement()) && !experiment.planning().has_hindsight();
      if (by_load && !to_bound.has_value()) to_bound = cases[i];
      to_balance = cases[i];
    }
    const bool last_of_setting = i + 1 == cases.size() || cases[i + 1].setting != cases[i].setting;
    if (!last_of_setting || !bound) continue;
    if (to_bound.has_value()) {
      to_bound->name = to_bound->of_setting + "oracle (hindsight)";
      for (const char* set : {"placement.policy=oracle", "planning.plan=hindsight", "rebalance.mode=none"}) {
        to_bound->request.set.push_back(set);
      }
      RETURN_IF_ERROR(add(*std::move(to_bound), false));
      to_bound.reset();
    }
    if (!to_balance.has_value()) continue;
    Case balanced = *std::exchange(to_balance, std::nullopt);
    balanced.name = balanced.of_setting + "perfect balance (bound)";
    // What it takes of the experiment besides its steps are the costs.  Nothing changes while it runs.
    for (const char* set : {"rebalance.mode=none", "routing.policy=token_choice"}) balanced.request.set.push_back(set);
    RETURN_IF_ERROR(add(std::move(balanced), true));
  }
  return prepared;
}

// Runs all; the files of the whole comparison appear together at the end, or none.
absl::StatusOr<nlohmann::ordered_json> RunAll(const std::vector<Prepared>& prepared, RunOptions options) {
  const std::string out = options.out;
  std::vector<std::unique_ptr<ReportFolder>> folders;
  // The folder that was made last goes first: it may lie in the others.
  const absl::Cleanup remove_in_reverse = [&folders] {
    while (!folders.empty()) folders.pop_back();
  };
  if (!out.empty()) {
    folders.push_back(std::make_unique<ReportFolder>(out));
    RETURN_IF_ERROR(folders.back()->Open());
  }
  // Those that replay the same steps run together.
  std::vector<std::optional<RunReport>> reports(prepared.size());
  size_t done = 0;
  for (size_t first = 0; first < prepared.size(); ++first) {
    if (reports[first].has_value()) continue;
    std::vector<size_t> together;
    std::vector<RunRequest> requests;
    for (size_t i = first; i < prepared.size(); ++i) {
      if (reports[i].has_value() || !ReplaySameSteps(prepared[first].resolved, prepared[i].resolved)) continue;
      if (!out.empty()) folders.push_back(std::make_unique<ReportFolder>(prepared[i].out));
      RunRequest request{&prepared[i].resolved, out.empty() ? nullptr : folders.back().get()};
      for (size_t k = 0; prepared[i].perfect_balance && k < together.size(); ++k) {
        if (prepared[together[k]].c.setting == prepared[i].c.setting) request.bound_of.push_back(k);
      }
      together.push_back(i);
      requests.push_back(std::move(request));
    }
    done += together.size();
    options.progress_label = absl::StrCat("replay of ", together.size(), " alternatives, ", done, "/", prepared.size());
    ASSIGN_OR_RETURN(std::vector<RunReport> some, RunTogether(requests, options));
    for (size_t i = 0; i < together.size(); ++i) reports[together[i]] = std::move(some[i]);
  }
  std::vector<ComparedRun> runs;
  for (size_t i = 0; i < prepared.size(); ++i) {
    runs.push_back({prepared[i].c.name, prepared[i].c.setting, *std::move(reports[i])});
  }
  nlohmann::ordered_json comparison = ComparisonJson(runs);
  if (!out.empty()) {
    ASSIGN_OR_RETURN(WholeFile * file, folders.front()->Create("comparison.json"));
    file->Write(JsonText(comparison));
    for (const auto& folder : folders) RETURN_IF_ERROR(folder->Commit());
  }
  return comparison;
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
                   "(default: the experiment's alternatives, or placement.policy=contiguous,eplb)")
      ->take_all()
      ->expected(1)
      ->allow_extra_args(false);
  command->add_flag("--no-bound", flags->no_bound,
                    "leave out the bounds: the oracle (planned on the steps that are scored) and the perfect balance");
  command->add_flag("--json", flags->json, "print the comparison as JSON");
  command->callback([flags, &invocation] {
    invocation.action = [flags, stop = invocation.stop]() -> absl::Status {
      flags->options.stop = stop;
      ASSIGN_OR_RETURN(std::vector<Case> cases, AllCases(flags->request, flags->vary));
      ASSIGN_OR_RETURN(const std::vector<Prepared> prepared,
                       Prepare(std::move(cases), !flags->no_bound, flags->options.out));
      ASSIGN_OR_RETURN(const nlohmann::ordered_json comparison, RunAll(prepared, flags->options));
      std::cout << (flags->json ? JsonText(comparison) : ComparisonText(comparison));
      if (!flags->options.out.empty()) {
        std::cerr << "report files are in " << flags->options.out << ", one folder an alternative\n";
      }
      return absl::OkStatus();
    };
  });
}

}  // namespace epsim
