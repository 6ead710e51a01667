// How a long operation is asked to end early (Ctrl-C).  Whoever loops over steps or chunks asks Stop() and returns
// Cancelled; nothing half written is left behind (whole_file.h).
#pragma once

#include <atomic>

#include "absl/status/status.h"

namespace epsim {

class StopToken {
 public:
  StopToken() = default;  // Never asked to stop.
  explicit StopToken(const std::atomic<bool>* flag) : flag_(flag) {}

  bool stop_requested() const { return flag_ != nullptr && flag_->load(std::memory_order_relaxed); }
  absl::Status Check() const { return stop_requested() ? absl::CancelledError("interrupted") : absl::OkStatus(); }

 private:
  const std::atomic<bool>* flag_ = nullptr;
};

}  // namespace epsim
