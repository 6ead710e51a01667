// What the terminal shows of a summary.
#pragma once

#include <string>
#include <vector>

#include "experiments/run_report.h"
#include "nlohmann/json.hpp"

namespace epsim {

// One run, a screen of text.
std::string AnswerText(const nlohmann::ordered_json& summary);

// One alternative of a comparison.
struct ComparedRun {
  std::string name;
  std::string setting;  // What it shares with those that it is compared with: all but the placement and its planning.
  RunReport report;
};

// Facts of a comparison: for each alternative its summary, and its speed-up over the first of the same setting: the
// ratio of tokens per second, with a 95 % interval over blocks of steps (both replay the same steps).
nlohmann::ordered_json ComparisonJson(const std::vector<ComparedRun>& runs);

// The same as a table.
std::string ComparisonText(const nlohmann::ordered_json& comparison);

}  // namespace epsim
