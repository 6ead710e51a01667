// Progress of long work, on stderr, only where that is a terminal.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace epsim {

class Progress {
 public:
  // `total` 0: unknown.
  Progress(std::string what, int64_t total);
  // Clears the line.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Redraws at most ten times a second.
  void Set(int64_t done);

 private:
  std::string what_;
  int64_t total_;
  bool terminal_, drawn_ = false;
  std::chrono::steady_clock::time_point begin_, last_;
};

}  // namespace epsim
