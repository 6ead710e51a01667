// The times of works: known ones from memory or from a folder, the others by executing them.  Executing takes a GPU;
// what is known does not, so that a run whose folder is complete needs none and always gives the same report.
//
// A folder belongs to one GPU with one driver.  It holds hardware.txtpb and a file for each work, called by the XXH3 of
// hardware and work; every file is a calibration table, and its first line has the XXH3 of the rest.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/stop_token.h"
#include "models/kernels/clock/kernel_clock.h"

namespace epsim {

using NewKernelClock = std::function<absl::StatusOr<std::unique_ptr<KernelClock>>()>;

// The time of `work`, if the clock can execute it and gives one.
absl::StatusOr<KernelTime> Execute(const KernelWork& work, KernelClock* clock);

class WorkTimes {
 public:
  // `new_clock` is called when the first work has to be executed; null: the first GPU of this machine.
  explicit WorkTimes(NewKernelClock new_clock = nullptr);

  // The times of `works`, in their order.  `folder` empty: kept in memory only, until this object ends.  Fails where
  // works have to be executed and cannot be (no GPU, too large for it, another GPU than the folder's), where a file of
  // the folder is damaged, and as `stop` asks; what has been executed is kept.  Thread-safe.
  absl::StatusOr<std::vector<KernelTime>> Get(absl::Span<const KernelWork> works, const std::string& folder,
                                              const StopToken& stop);

  // On what the times of `folder` were taken; nothing where none has been.
  std::optional<Hardware> hardware(const std::string& folder);

 private:
  struct Folder {
    bool opened = false;
    std::optional<Hardware> hardware;
    std::map<std::string, KernelTime> times;  // By WorkKey().
  };

  // Reads whose folder it is.
  absl::Status Open(const std::string& path, Folder* folder);
  // The time in its file; nothing where there is none.
  absl::StatusOr<std::optional<KernelTime>> Find(const std::string& path, const Folder& folder, const KernelWork& work);
  // Makes the clock ready for works of `folder`.
  absl::Status OpenClock(const std::string& path, Folder* folder);

  const NewKernelClock new_clock_;
  std::mutex mutex_;
  std::unique_ptr<KernelClock> clock_;     // Null until it is needed.
  std::map<std::string, Folder> folders_;  // By path.
};

}  // namespace epsim
