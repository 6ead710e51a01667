#include "models/calibration/calibrate.h"

#include <chrono>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/progress.h"
#include "engine/status_macros.h"
#include "engine/whole_file.h"
#include "models/calibration/calibration_table.h"
#include "models/calibration/work_times.h"

namespace epsim {
namespace {

namespace fs = std::filesystem;

// Of the folder: one kind of work.
struct Table {
  std::string path;
  CalibrationTable table;
  std::set<std::string> known;  // By WorkKey().
  bool changed = false;
};

// A nanosecond is finer than any clock; fewer digits make smaller files.
double Rounded(double us) { return std::max(0.001, std::round(us * 1000) / 1000); }

KernelTime Rounded(KernelTime time) {
  time.set_median_us(Rounded(time.median_us()));
  time.set_lower_quartile_us(std::min(Rounded(time.lower_quartile_us()), time.median_us()));
  time.set_upper_quartile_us(std::max(Rounded(time.upper_quartile_us()), time.median_us()));
  return time;
}

absl::StatusOr<Table> OpenTable(const std::string& path, const Hardware& hardware, const CalibrationRun& run) {
  Table opened;
  opened.path = path;
  std::error_code error;
  if (!fs::exists(path, error)) {
    *opened.table.mutable_hardware() = hardware;
    opened.table.set_date(run.date);
    opened.table.set_epsim_version(run.epsim_version);
    return opened;
  }
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  ASSIGN_OR_RETURN(opened.table, ParseCalibrationTable(text, path));
  for (const Measurement& m : opened.table.measurement()) opened.known.insert(WorkKey(m.work()));
  return opened;
}

// All tables that are there must be of this hardware, whatever kind they are.
absl::Status CheckHardware(const std::string& folder, const Hardware& hardware) {
  std::error_code error;
  bool any = false;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    any = any || entry.path().extension() == ".txtpb";
  }
  if (!any) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Calibration there, ReadCalibrationFolder(folder));
  if (SameHardware(there.hardware, hardware)) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(folder, ": holds measurements of ", HardwareText(there.hardware),
                                                    ", and this is ", HardwareText(hardware),
                                                    "; give another folder with --out"));
}

absl::Status Save(Table* table) {
  if (!table->changed) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::unique_ptr<WholeFile> file, WholeFile::Create(table->path));
  file->Write(PrintCalibrationTable(table->table));
  RETURN_IF_ERROR(file->Commit());
  table->changed = false;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CalibrationCount> Calibrate(absl::Span<const KernelWork> works, KernelClock* clock,
                                           const CalibrationRun& run) {
  constexpr auto kSaveEvery = std::chrono::seconds(5);
  constexpr int kMostFailuresInARow = 3;  // What follows an error of the device that stays.
  RETURN_IF_ERROR(CheckHardware(run.folder, clock->hardware()));
  std::error_code error;
  fs::create_directories(run.folder, error);
  if (error) return absl::UnavailableError(absl::StrCat(run.folder, ": cannot make the folder: ", error.message()));

  CalibrationCount count;
  size_t failures = 0;
  int failures_in_a_row = 0;
  std::string first_failure;
  std::map<std::string, Table> tables;    // By kind.
  std::map<std::string, size_t> refused;  // Reasons, by kind.
  const auto save_all = [&]() -> absl::Status {
    for (auto& [kind, table] : tables) RETURN_IF_ERROR(Save(&table));
    return absl::OkStatus();
  };
  const auto measure = [&](const KernelWork& work, Table* table) -> absl::Status {
    const absl::StatusOr<KernelTime> time = Execute(work, clock);
    if (IsRefusal(time.status())) {
      ++count.refused;
      ++refused[absl::StrCat(KindOf(work), ": ", time.status().message())];
      failures_in_a_row = 0;
      return absl::OkStatus();
    }
    if (!time.ok()) {
      const std::string failure = absl::StrCat(WorkText(work), ": ", time.status().message());
      run.log(absl::StrCat("failed: ", failure));
      if (++failures == 1) first_failure = failure;
      if (++failures_in_a_row < kMostFailuresInARow) return absl::OkStatus();
      return absl::UnavailableError(absl::StrCat(failures_in_a_row, " failures in a row, the last of ", failure));
    }
    failures_in_a_row = 0;
    Measurement* measurement = table->table.add_measurement();
    *measurement->mutable_work() = work;
    *measurement->mutable_time() = Rounded(*time);
    table->known.insert(WorkKey(work));
    table->changed = true;
    ++count.measured;
    return absl::OkStatus();
  };

  absl::Status status;
  {
    Progress progress("calibrating", static_cast<int64_t>(works.size()));
    auto saved = std::chrono::steady_clock::now();
    std::string last_kind;
    for (size_t i = 0; i < works.size() && status.ok(); ++i) {
      progress.Set(static_cast<int64_t>(i));
      status = run.stop.Check();
      if (!status.ok()) break;
      const std::string kind = KindOf(works[i]);
      if (!tables.contains(kind)) {
        absl::StatusOr<Table> table =
            OpenTable((fs::path(run.folder) / (kind + ".txtpb")).string(), clock->hardware(), run);
        status = table.status();
        if (!status.ok()) break;
        tables.emplace(kind, *std::move(table));
      }
      Table& table = tables.at(kind);
      if (table.known.contains(WorkKey(works[i]))) {
        ++count.known;
        continue;
      }
      status = measure(works[i], &table);
      const auto now = std::chrono::steady_clock::now();
      if (status.ok() && (now - saved >= kSaveEvery || kind != last_kind)) {
        status = save_all();
        saved = now;
      }
      last_kind = kind;
    }
  }
  const absl::Status kept = save_all();
  for (const auto& [reason, times] : refused) {
    run.log(absl::StrCat("not measured, ", times, times == 1 ? " work: " : " works: ", reason));
  }
  if (absl::IsCancelled(status)) {
    return absl::CancelledError(absl::StrCat("interrupted: ", count.known + count.measured, " of ", works.size(),
                                             " works are in ", run.folder, "; run it again to go on"));
  }
  RETURN_IF_ERROR(status);
  RETURN_IF_ERROR(kept);
  if (failures > 0) {
    return absl::UnavailableError(absl::StrCat(failures, " of ", works.size(),
                                               " works failed, the first: ", first_failure, "; ",
                                               count.known + count.measured, " are in ", run.folder));
  }
  return count;
}

}  // namespace epsim
