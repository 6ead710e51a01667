#include "experiments/timeline.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace epsim {

Timeline::Timeline(WholeFile* file, const Cluster& cluster, int64_t steps) : file_(file), steps_left_(steps) {
  file_->Write("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[");
  for (int rank = 0; rank < cluster.ranks(); ++rank) {
    Event(absl::StrFormat(R"json({"ph":"M","pid":%d,"name":"process_name","args":{"name":"rank %d (node %d)"}})json",
                          rank, rank, Index(cluster.node_of(Rank(rank)))));
    Event(absl::StrFormat(R"json({"ph":"M","pid":%d,"name":"process_sort_index","args":{"sort_index":%d}})json", rank,
                          rank));
    Event(
        absl::StrFormat(R"json({"ph":"M","pid":%d,"tid":0,"name":"thread_name","args":{"name":"compute"}})json", rank));
    Event(absl::StrFormat(R"json({"ph":"M","pid":%d,"tid":1,"name":"thread_name","args":{"name":"communication"}})json",
                          rank));
  }
}

void Timeline::Event(std::string_view json) {
  file_->Write(first_ ? "\n" : ",\n");
  first_ = false;
  file_->Write(json);
}

void Timeline::OnStage(const StageRecord& stage) {
  if (steps_left_ <= 0) return;
  std::string name(Name(stage.kind));
  if (stage.part > 0) absl::StrAppend(&name, ", half ", stage.part);
  for (size_t rank = 0; rank < stage.start.size(); ++rank) {
    const Duration start = stage.start[rank].time_since_epoch();
    const Duration length = stage.finish[rank] - stage.start[rank];
    if (length == Duration{}) continue;
    Event(absl::StrFormat(
        R"json({"ph":"X","pid":%d,"tid":%d,"name":"%s","ts":%.6f,"dur":%.6f,"args":{"layer":%d,"part":%d,"chunk":%d,"repeat":%d}})json",
        rank, static_cast<int>(StreamOf(stage.kind)), name, Microseconds(start), Microseconds(length), stage.layer,
        stage.part, stage.chunk, stage.repeat));
  }
}

void Timeline::OnStepEnd(const StepRecord& step) {
  if (steps_left_-- <= 0) return;
  Event(absl::StrFormat(
      R"json({"ph":"i","pid":0,"tid":0,"s":"g","name":"end of step %d","ts":%.6f,"args":{"tokens":%d}})json",
      step.batch->index, Microseconds(step.finish.time_since_epoch()), step.batch->tokens));
}

void Timeline::Close() { file_->Write("\n]}\n"); }

}  // namespace epsim
