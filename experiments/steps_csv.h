#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "engine/whole_file.h"
#include "experiments/step_facts.h"

namespace epsim {

// steps.csv: one line a scored step, in order; the columns are named in the first line and carry their unit.
class StepsCsv {
 public:
  // `file` must outlive the table.
  explicit StepsCsv(WholeFile* file);
  void Add(const StepFacts& facts);

 private:
  WholeFile* const file_;
};

}  // namespace epsim
