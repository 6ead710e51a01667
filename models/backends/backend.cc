#include "models/backends/backend.h"

#include <algorithm>
#include <cstdint>
#include <set>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "engine/text_proto.h"

namespace epsim {
namespace {

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

std::string FormatsName(NumberType weights, NumberType activations) {
  return absl::StrCat(NumberType_Name(weights), " weights with ", NumberType_Name(activations), " activations");
}

// "90, 100 to 103 and from 120 on".
std::string RangesName(const BackendQuantisation& quantisation) {
  std::vector<std::string> ranges;
  for (const ComputeCapabilities& range : quantisation.on()) {
    if (range.most() == 0) {
      ranges.push_back(absl::StrCat("from ", range.least(), " on"));
    } else if (range.least() == range.most()) {
      ranges.push_back(absl::StrCat(range.least()));
    } else {
      ranges.push_back(absl::StrCat(range.least(), " to ", range.most()));
    }
  }
  if (ranges.size() < 2) return absl::StrJoin(ranges, "");
  const std::string last = ranges.back();
  ranges.pop_back();
  return absl::StrCat(absl::StrJoin(ranges, ", "), " and ", last);
}

bool RunsOn(const BackendQuantisation& quantisation, const GpuSpec& gpu) {
  return std::any_of(quantisation.on().begin(), quantisation.on().end(), [&gpu](const ComputeCapabilities& range) {
    return gpu.compute_capability() >= range.least() && (range.most() == 0 || gpu.compute_capability() <= range.most());
  });
}

// What of the model the kernels cannot take; "" if nothing.
std::string ShapeProblem(const Backend& backend, const BackendQuantisation& quantisation, const ModelSpec& model) {
  const auto multiple = [](const char* field, uint32_t value, uint32_t of) {
    if (of == 0 || value % of == 0) return std::string();
    const uint32_t below = value / of * of;
    const std::string would = below == 0 ? absl::StrCat(of) : absl::StrCat(below, " or ", below + of);
    return absl::StrCat("model.", field, ": ", value, " is no multiple of ", of, "; ", would, " would be");
  };
  const auto most = [](const char* field, uint32_t value, uint32_t limit) {
    if (limit == 0 || value <= limit) return std::string();
    return absl::StrCat("model.", field, ": ", value, " is more than ", limit);
  };
  for (const std::string& problem :
       {multiple("hidden", model.hidden(), quantisation.hidden_multiple()),
        multiple("moe_intermediate", model.moe_intermediate(), quantisation.intermediate_multiple()),
        multiple("experts", model.experts(), backend.experts_multiple()),
        most("experts", model.experts(), backend.most_experts()), most("top_k", model.top_k(), backend.most_top_k())}) {
    if (!problem.empty()) return problem;
  }
  return "";
}

// Why the backend cannot do it; "" if it can.
std::string Problem(const Backend& backend, const Precision& precision, const GpuSpec& gpu, const ModelSpec& model) {
  const BackendQuantisation* quantisation = FindQuantisation(backend, precision);
  const std::string formats = FormatsName(precision.expert_weights(), precision.expert_activations());
  if (quantisation == nullptr) return absl::StrCat("has no kernels for ", formats);
  if (!RunsOn(*quantisation, gpu)) {
    return absl::StrCat("runs ", formats, " on compute capability ", RangesName(*quantisation), "; gpu \"", gpu.name(),
                        "\" has ", gpu.compute_capability());
  }
  return ShapeProblem(backend, *quantisation, model);
}

const std::vector<Backend>& AllBackends() {
  static const auto* const all = [] {
    auto* backends = new std::vector<Backend>;
    for (const CatalogueFile& file : BackendCatalogue()) {
      const absl::Status status = ParseTextProto(file.text, file.path, &backends->emplace_back());
      EPSIM_CHECK(status.ok());
    }
    return backends;
  }();
  return *all;
}

// What would do instead: other formats of the same backend on this GPU, other backends for these formats.
std::string Alternatives(const Backend& backend, const Precision& precision, const GpuSpec& gpu,
                         const ModelSpec& model) {
  std::vector<std::string> formats, backends;
  for (const BackendQuantisation& other : backend.quantisation()) {
    if (RunsOn(other, gpu) && ShapeProblem(backend, other, model).empty()) {
      formats.push_back(FormatsName(other.weights(), other.activations()));
    }
  }
  for (const Backend& other : AllBackends()) {
    if (Problem(other, precision, gpu, model).empty()) backends.push_back(Name(other));
  }
  if (formats.empty() && backends.empty()) {
    std::set<std::string> others;
    for (const Backend& other : AllBackends()) {
      for (const BackendQuantisation& quantisation : other.quantisation()) {
        if (RunsOn(quantisation, gpu) && ShapeProblem(other, quantisation, model).empty()) {
          others.insert(FormatsName(quantisation.weights(), quantisation.activations()));
        }
      }
    }
    return others.empty() ? "no backend runs this model on this gpu"
                          : absl::StrCat("no backend runs these formats of this model on this gpu; ",
                                         absl::StrJoin(others, " or "), " would do with others");
  }
  std::string text;
  if (!formats.empty()) absl::StrAppend(&text, "with it, ", absl::StrJoin(formats, " or "), " would do");
  if (!backends.empty()) {
    absl::StrAppend(&text, formats.empty() ? "" : "; ", "for these formats, ", absl::StrJoin(backends, ", "),
                    " would do");
  }
  return text;
}

template <typename... Parts>
absl::Status Refuse(const Backend& backend, const Parts&... reason) {
  return absl::FailedPreconditionError(absl::StrCat("backend ", Name(backend), ": ", reason...));
}

const char* ScheduleName(Backend::Schedule schedule) { return schedule == Backend::FUSED ? "fused" : "external"; }

}  // namespace

std::string Name(const Backend& backend) {
  return absl::StrCat(absl::AsciiStrToLower(Backend::Engine_Name(backend.engine())), "/", backend.name());
}

absl::StatusOr<Backend> FindBackend(std::string_view name) {
  std::vector<std::string> names;
  for (const Backend& backend : AllBackends()) {
    names.push_back(Name(backend));
    if (names.back() == name) return backend;
  }
  return absl::NotFoundError(absl::StrCat("no backend \"", View(name), "\"; there are ", absl::StrJoin(names, ", ")));
}

const BackendQuantisation* FindQuantisation(const Backend& backend, const Precision& precision) {
  EPSIM_CHECK(precision.expert_weights() != NUMBER_TYPE_DEFAULT &&
              precision.expert_activations() != NUMBER_TYPE_DEFAULT);
  for (const BackendQuantisation& quantisation : backend.quantisation()) {
    if (quantisation.weights() == precision.expert_weights() &&
        quantisation.activations() == precision.expert_activations()) {
      return &quantisation;
    }
  }
  return nullptr;
}

absl::Status CanImplement(const Backend& backend, const Precision& precision, const GpuSpec& gpu,
                          const ModelSpec& model) {
  if (gpu.compute_capability() == 0) {
    return Refuse(backend, "gpu.compute_capability of \"", gpu.name(), "\" is missing; kernels are chosen by it");
  }
  const std::string problem = Problem(backend, precision, gpu, model);
  if (problem.empty()) return absl::OkStatus();
  return Refuse(backend, problem, "; ", Alternatives(backend, precision, gpu, model));
}

absl::Status CanRebalance(const Backend& backend, const Precision& precision) {
  const BackendQuantisation* quantisation = FindQuantisation(backend, precision);
  EPSIM_CHECK(quantisation != nullptr);
  if (quantisation->eplb() != EPLB_NOT_SUPPORTED) return absl::OkStatus();
  std::vector<std::string> others;
  for (const Backend& other : AllBackends()) {
    const BackendQuantisation* same = FindQuantisation(other, precision);
    if (same != nullptr && same->eplb() == EPLB_SUPPORTED) others.push_back(Name(other));
  }
  return Refuse(
      backend, "experts with ", FormatsName(quantisation->weights(), quantisation->activations()),
      " cannot be moved while serving; ",
      others.empty() ? "a static placement would do" : absl::StrCat(absl::StrJoin(others, ", "), " would do"));
}

absl::Status CanExchangeBy(const Backend& backend, std::string_view communication) {
  const auto& known = backend.communication();
  if (known.empty() || communication == "all_to_all") return absl::OkStatus();
  if (std::find(known.begin(), known.end(), communication) != known.end()) return absl::OkStatus();
  return Refuse(backend, "does not work with communication.", View(communication), "; ", absl::StrJoin(known, ", "),
                " would do");
}

absl::Status CanBeScheduled(const Backend& backend, const ScheduleConfig& schedule) {
  const Backend::Schedule asked = schedule.has_fused() ? Backend::FUSED : Backend::EXTERNAL;
  const auto& known = backend.schedule();
  if (std::find(known.begin(), known.end(), asked) != known.end()) return absl::OkStatus();
  std::vector<std::string> others;
  for (const Backend& other : AllBackends()) {
    const auto& of_other = other.schedule();
    if (std::find(of_other.begin(), of_other.end(), asked) != of_other.end()) others.push_back(Name(other));
  }
  return Refuse(backend, "has no ", ScheduleName(asked), " schedule; schedule.",
                ScheduleName(asked == Backend::FUSED ? Backend::EXTERNAL : Backend::FUSED), " would do, or ",
                absl::StrJoin(others, ", "));
}

}  // namespace epsim
