#include "models/calibration/work_times.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/progress.h"
#include "engine/status_macros.h"
#include "engine/whole_file.h"
#include "models/calibration/calibration_table.h"
#include "models/kernels/clock/gpu_clock.h"

namespace epsim {
namespace {

namespace fs = std::filesystem;

constexpr char kHashLine[] = "# xxh3 ";

std::string Hash(const std::string& text) { return absl::StrFormat("%016x", XXH3_64bits(text.data(), text.size())); }

// What stays the same while a GPU is busy or not.
Hardware Identity(Hardware hardware) {
  hardware.clear_sm_clock_mhz();
  hardware.clear_memory_clock_mhz();
  return hardware;
}

std::string HardwareFile(const std::string& folder) { return (fs::path(folder) / "hardware.txtpb").string(); }

std::string WorkFile(const std::string& folder, const Hardware& hardware, const KernelWork& work) {
  const std::string name = Hash(Identity(hardware).SerializeAsString() + WorkKey(work));
  return (fs::path(folder) / (name + ".txtpb")).string();
}

absl::Status WriteTable(const std::string& path, const CalibrationTable& table) {
  const std::string text = PrintCalibrationTable(table);
  ASSIGN_OR_RETURN(const std::unique_ptr<WholeFile> file, WholeFile::Create(path));
  file->Write(absl::StrCat(kHashLine, Hash(text), "\n", text));
  return file->Commit();
}

absl::StatusOr<CalibrationTable> ReadTable(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  const size_t line = text.find('\n');
  if (line == std::string::npos || text.substr(0, line) != kHashLine + Hash(text.substr(line + 1))) {
    return absl::DataLossError(absl::StrCat(
        path, ":1: damaged: the text is not what was written; delete the file, and ", "it will be executed again"));
  }
  return ParseCalibrationTable(text, path);
}

}  // namespace

absl::StatusOr<KernelTime> Execute(const KernelWork& work, KernelClock* clock) {
  RETURN_IF_ERROR(clock->CanImplement(work));
  ASSIGN_OR_RETURN(KernelTime time, clock->Time(work));
  if (!(time.median_us() > 0)) return absl::InternalError(absl::StrCat("the clock says ", time.median_us(), " us"));
  return time;
}

WorkTimes::WorkTimes(NewKernelClock new_clock)
    : new_clock_(new_clock != nullptr ? std::move(new_clock) : [] { return NewGpuClock(0); }) {}

absl::Status WorkTimes::Open(const std::string& path, Folder* folder) {
  if (folder->opened) return absl::OkStatus();
  std::error_code error;
  if (!path.empty() && fs::exists(HardwareFile(path), error)) {
    ASSIGN_OR_RETURN(const CalibrationTable table, ReadTable(HardwareFile(path)));
    folder->hardware = table.hardware();
  }
  folder->opened = true;
  return absl::OkStatus();
}

absl::StatusOr<std::optional<KernelTime>> WorkTimes::Find(const std::string& path, const Folder& folder,
                                                          const KernelWork& work) {
  if (path.empty() || !folder.hardware.has_value()) return std::nullopt;
  const std::string file = WorkFile(path, *folder.hardware, work);
  std::error_code error;
  if (!fs::exists(file, error)) return std::nullopt;
  ASSIGN_OR_RETURN(const CalibrationTable table, ReadTable(file));
  if (table.measurement_size() != 1 || WorkKey(table.measurement(0).work()) != WorkKey(work) ||
      !SameHardware(table.hardware(), *folder.hardware)) {
    return absl::DataLossError(absl::StrCat(file, ": holds the time of something else than ", WorkText(work), " on ",
                                            HardwareText(*folder.hardware), "; delete the file"));
  }
  return table.measurement(0).time();
}

absl::Status WorkTimes::OpenClock(const std::string& path, Folder* folder) {
  if (clock_ == nullptr) {
    ASSIGN_OR_RETURN(clock_, new_clock_());
  }
  if (folder->hardware.has_value()) {
    if (SameHardware(clock_->hardware(), *folder->hardware)) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat(path, ": holds times of ", HardwareText(*folder->hardware),
                                                      ", and this is ", HardwareText(clock_->hardware()),
                                                      "; name another folder"));
  }
  if (!path.empty()) {
    std::error_code error;
    fs::create_directories(path, error);
    CalibrationTable table;
    *table.mutable_hardware() = Identity(clock_->hardware());
    RETURN_IF_ERROR(WriteTable(HardwareFile(path), table));
  }
  folder->hardware = Identity(clock_->hardware());
  return absl::OkStatus();
}

absl::StatusOr<std::vector<KernelTime>> WorkTimes::Get(absl::Span<const KernelWork> works, const std::string& path,
                                                       const StopToken& stop) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Folder& folder = folders_[path];
  RETURN_IF_ERROR(Open(path, &folder));
  std::vector<const KernelWork*> unknown;
  for (const KernelWork& work : works) {
    const std::string key = WorkKey(work);
    if (folder.times.contains(key)) continue;
    ASSIGN_OR_RETURN(const std::optional<KernelTime> found, Find(path, folder, work));
    if (found.has_value()) {
      folder.times.emplace(key, *found);
    } else {
      unknown.push_back(&work);
    }
  }
  if (!unknown.empty()) {
    RETURN_IF_ERROR(stop.Check());
    if (const absl::Status status = OpenClock(path, &folder); !status.ok()) {
      // Not the fault of an input: the same run may succeed on another machine.
      return absl::Status(absl::IsFailedPrecondition(status) ? status.code() : absl::StatusCode::kUnavailable,
                          absl::StrCat(unknown.size(), " works have to be executed",
                                       path.empty() ? "" : absl::StrCat(", which ", path, " does not hold"),
                                       ", the first being ", WorkText(*unknown[0]), ": ", status.message()));
    }
    Progress progress("executing", static_cast<int64_t>(unknown.size()));
    for (size_t i = 0; i < unknown.size(); ++i) {
      progress.Set(static_cast<int64_t>(i));
      RETURN_IF_ERROR(stop.Check());
      const KernelWork& work = *unknown[i];
      if (folder.times.contains(WorkKey(work))) continue;  // Asked for twice.
      const absl::StatusOr<KernelTime> time = Execute(work, clock_.get());
      if (!time.ok()) {
        return absl::UnavailableError(absl::StrCat(WorkText(work), " cannot be executed on ", clock_->hardware().gpu(),
                                                   ": ", time.status().message()));
      }
      if (!path.empty()) {
        CalibrationTable table;
        *table.mutable_hardware() = *folder.hardware;
        *table.add_measurement()->mutable_work() = work;
        *table.mutable_measurement(0)->mutable_time() = *time;
        RETURN_IF_ERROR(WriteTable(WorkFile(path, *folder.hardware, work), table));
      }
      folder.times.emplace(WorkKey(work), *time);
    }
  }
  std::vector<KernelTime> times;
  for (const KernelWork& work : works) times.push_back(folder.times.at(WorkKey(work)));
  return times;
}

std::optional<Hardware> WorkTimes::hardware(const std::string& folder) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return folders_[folder].hardware;
}

}  // namespace epsim
