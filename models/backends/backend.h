// A backend is an implementation of the routed experts in a serving engine.  Each has kernels for some formats on some
// generations of GPUs; what does not go together is known before anything runs, and the reason says what would.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/catalogue.h"
#include "models/backends/backend.pb.h"
#include "models/costs/costs.pb.h"
#include "models/model.pb.h"
#include "models/schedule/schedule.pb.h"
#include "platforms/platform.pb.h"

namespace epsim {

// The backends that ship.
absl::Span<const CatalogueFile> BackendCatalogue();
// "tensorrt_llm/cutlass".
std::string Name(const Backend& backend);
// By that name; the error lists the names there are.
absl::StatusOr<Backend> FindBackend(std::string_view name);

// The backend's kernels for expert_weights and expert_activations of `precision`; null if it has none.
// REQUIRES: `precision` without defaults (CompleteCostConfig).
const BackendQuantisation* FindQuantisation(const Backend& backend, const Precision& precision);

// Whether the backend has kernels for these formats and this model on this GPU.  REQUIRES: as above.
absl::Status CanImplement(const Backend& backend, const Precision& precision, const GpuSpec& gpu,
                          const ModelSpec& model);
// Whether experts may move: fails where the engine says that they may not.  What the engine does not say is allowed;
// FindQuantisation()->eplb() tells it from what it supports.  REQUIRES: CanImplement.
absl::Status CanRebalance(const Backend& backend, const Precision& precision);
// Whether it works with a strategy, by the name that Communication::name() gives it.  all_to_all stands for no library
// and goes with every backend.
absl::Status CanExchangeBy(const Backend& backend, std::string_view communication);
// Whether it has the kernels that the schedule's kind needs.
absl::Status CanBeScheduled(const Backend& backend, const ScheduleConfig& schedule);

}  // namespace epsim
