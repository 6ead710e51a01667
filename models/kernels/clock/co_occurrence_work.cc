#include <utility>
#include <vector>

#include "engine/status_macros.h"
#include "models/kernels/clock/gpu_work.h"
#include "models/kernels/clock/random_ids.h"
#include "models/kernels/co_occurrence_gpu.h"
#include "models/kernels/device_buffer.h"

namespace epsim {
namespace {

class CoOccurrence : public GpuWork {
 public:
  explicit CoOccurrence(const CoOccurrenceOptions& options) : options_(options) {}

  int64_t set_bytes() const override { return 4 * (Ids() + Counts()); }

  absl::Status Prepare(int sets, GraphTimer& /*timer*/) override {
    const std::vector<int32_t> ids = DrawDistinctIds(options_.tokens, options_.top_k, options_.experts);
    for (int i = 0; i < sets; ++i) {
      Set set;
      ASSIGN_OR_RETURN(set.ids, DeviceBuffer<int32_t>::Allocate(Ids()));
      RETURN_IF_ERROR(CopyToDevice(ids.data(), set.ids));
      ASSIGN_OR_RETURN(set.counts, DeviceBuffer<int32_t>::Allocate(Counts()));
      sets_.push_back(std::move(set));
    }
    return absl::OkStatus();
  }

  absl::Status Launch(int set_number, cudaStream_t stream) override {
    const Set& set = sets_[static_cast<size_t>(set_number)];
    return LaunchCoOccurrence(options_, set.ids.data(), set.counts.data(), stream);
  }

 private:
  struct Set {
    DeviceBuffer<int32_t> ids, counts;
  };
  int64_t Ids() const { return int64_t{options_.tokens} * options_.top_k; }
  int64_t Counts() const { return int64_t{options_.experts} * options_.experts; }

  const CoOccurrenceOptions options_;
  std::vector<Set> sets_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GpuWork>> NewCoOccurrenceWork(const CoOccurrenceWork& work) {
  const CoOccurrenceOptions options = {.tokens = static_cast<int>(work.tokens()),
                                       .experts = static_cast<int>(work.experts()),
                                       .top_k = static_cast<int>(work.top_k())};
  RETURN_IF_ERROR(CanImplement(options));
  if (options.tokens < 1) return absl::InvalidArgumentError("tokens: there are none");
  return std::make_unique<CoOccurrence>(options);
}

}  // namespace epsim
