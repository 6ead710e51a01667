#include "engine/progress.h"

#include <unistd.h>

#include <cstdio>
#include <utility>

namespace epsim {

Progress::Progress(std::string what, int64_t total)
    : what_(std::move(what)),
      total_(total),
      terminal_(isatty(STDERR_FILENO) != 0),
      begin_(std::chrono::steady_clock::now()),
      last_(begin_) {}

Progress::~Progress() {
  if (drawn_) std::fputs("\r\033[K", stderr);
}

void Progress::Set(int64_t done) {
  if (!terminal_) return;
  const auto now = std::chrono::steady_clock::now();
  if (now - last_ < std::chrono::milliseconds(100)) return;
  last_ = now;
  drawn_ = true;
  const double seconds = std::chrono::duration<double>(now - begin_).count();
  if (total_ > 0) {
    std::fprintf(stderr, "\r\033[K%s %3.0f %%  %.0f s left", what_.c_str(), 100.0 * done / total_,
                 done > 0 ? seconds * (total_ - done) / done : 0.0);
  } else {
    std::fprintf(stderr, "\r\033[K%s %lld  %.0f s", what_.c_str(), static_cast<long long>(done), seconds);
  }
  std::fflush(stderr);
}

}  // namespace epsim
