// timeline.json: the first steps as Chrome trace events, one process a rank, one thread a GPU stream.  Opens in
// Perfetto (ui.perfetto.dev) and chrome://tracing.  A stage of one half of a batch has the half in its name, so that
// the halves have different colours; layer, part, chunk and repeat (StageRecord) are its arguments.
#pragma once

#include <cstdint>
#include <string_view>

#include "engine/whole_file.h"
#include "models/simulation/observer.h"
#include "platforms/cluster.h"

namespace epsim {

class Timeline : public Observer {
 public:
  // Draws the first `steps` steps.  `file` must outlive the timeline; Close() completes its text.
  Timeline(WholeFile* file, const Cluster& cluster, int64_t steps);

  void OnStage(const StageRecord& stage) override;
  void OnStepEnd(const StepRecord& step) override;
  void Close();

 private:
  void Event(std::string_view json);

  WholeFile* const file_;
  int64_t steps_left_;
  bool first_ = true;
};

}  // namespace epsim
