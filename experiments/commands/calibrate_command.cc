// `epsim calibrate`: measures what kernels take on a GPU of this machine.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/status_macros.h"
#include "experiments/commands/commands.h"
#include "experiments/traced_histograms.h"
#include "experiments/version.h"
#include "models/calibration/calibrate.h"
#include "models/calibration/calibration_plan.h"
#include "models/calibration/calibration_table.h"
#include "models/catalogue.h"
#include "models/kernels/clock/gpu_clock.h"

namespace epsim {
namespace {

constexpr int kTracedHistograms = 24;

struct Flags {
  int gpu = 0;
  std::string out, trace;
  std::vector<std::string> models;
  bool quick = false;
};

absl::StatusOr<CalibrationRequest> Request(const Flags& flags, const StopToken& stop) {
  CalibrationRequest request{.models = {}, .traced = {}, .quick = flags.quick};
  std::vector<std::string> names = flags.models;
  if (names.empty()) {
    for (const CatalogueFile& file : ModelCatalogue()) names.emplace_back(file.name);
  }
  for (const std::string& name : names) {
    const absl::StatusOr<ModelSpec> model = FindModel(name);
    if (!model.ok()) return absl::InvalidArgumentError(absl::StrCat("--model: ", model.status().message()));
    request.models.push_back(*model);
  }
  if (flags.trace.empty()) return request;
  ASSIGN_OR_RETURN(const HistogramsOfTrace histograms, ReadHistograms(flags.trace, kTracedHistograms, stop));
  absl::StatusOr<ModelSpec> model = FindModel(histograms.model);
  if (!model.ok() && flags.models.size() == 1) model = request.models.front();
  if (!model.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(flags.trace, ": captured on \"", histograms.model,
                                                   "\", which is not in the catalogue; with one --model, its experts "
                                                   "are measured with the trace's histograms"));
  }
  request.traced.push_back({.model = *model, .tokens_per_slot = histograms.tokens_per_slot});
  return request;
}

// Of `works`: in all, and those that the folder does not hold.
absl::StatusOr<size_t> CountUnknown(const std::vector<KernelWork>& works, const std::string& folder) {
  std::error_code error;
  bool any = false;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    any = any || entry.path().extension() == ".txtpb";
  }
  if (!any) return works.size();
  ASSIGN_OR_RETURN(const Calibration there, ReadCalibrationFolder(folder));
  std::vector<std::string> known;
  for (const Measurement& measurement : there.measurements) known.push_back(WorkKey(measurement.work()));
  std::sort(known.begin(), known.end());
  return std::count_if(works.begin(), works.end(), [&](const KernelWork& work) {
    return !std::binary_search(known.begin(), known.end(), WorkKey(work));
  });
}

absl::Status RunCalibration(const Flags& flags, const StopToken& stop,
                            const std::function<absl::StatusOr<std::unique_ptr<KernelClock>>(int)>& new_clock) {
  ASSIGN_OR_RETURN(const CalibrationRequest request, Request(flags, stop));
  const std::vector<KernelWork> works = PlanCalibration(request);
  ASSIGN_OR_RETURN(const size_t unknown, CountUnknown(works, flags.out));
  absl::StatusOr<std::unique_ptr<KernelClock>> clock = new_clock(flags.gpu);
  if (!clock.ok()) {
    return absl::UnavailableError(absl::StrCat("--gpu ", flags.gpu, ": ", clock.status().message()));
  }
  std::cerr << absl::StrFormat("%d works, of which %d are to be measured on %s: about %.0f minutes\n", works.size(),
                               unknown, HardwareText((*clock)->hardware()),
                               std::ceil(static_cast<double>(unknown) * kSecondsPerWork / 60));
  ASSIGN_OR_RETURN(const CalibrationCount count,
                   Calibrate(works, clock->get(),
                             {.folder = flags.out,
                              .date = absl::FormatTime("%Y-%m-%d", absl::Now(), absl::UTCTimeZone()),
                              .epsim_version = kVersion,
                              .stop = stop,
                              .log = [](const std::string& line) { std::cerr << line << "\n"; }}));
  std::cout << absl::StrFormat("%s: %d measured, %d known before, %d not possible on this GPU\n", flags.out,
                               count.measured, count.known, count.refused);
  return absl::OkStatus();
}

}  // namespace

void AddCalibrateCommand(CLI::App& app, Invocation& invocation,
                         std::function<absl::StatusOr<std::unique_ptr<KernelClock>>(int)> new_clock) {
  if (new_clock == nullptr) new_clock = NewGpuClock;
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      app.add_subcommand("calibrate", "measure kernels on a GPU, for the cost model `measured`; go on where it ended");
  command->add_option("--gpu", flags->gpu, "number of the GPU")->check(CLI::Range(0, 1023))->capture_default_str();
  command->add_option("--out", flags->out, "folder of the tables, such as platforms/calibration/h200-sxm")->required();
  command->add_option("--model", flags->models,
                      "shapes of this model of the catalogue; several may be named. Default all");
  command->add_option("--trace", flags->trace, "also experts with the histograms of this trace");
  command->add_flag("--quick", flags->quick, "a coarser grid, for about a fourth of the time");
  command->callback([flags, &invocation, new_clock] {
    invocation.action = [flags, new_clock, stop = invocation.stop] { return RunCalibration(*flags, stop, new_clock); };
  });
}

}  // namespace epsim
