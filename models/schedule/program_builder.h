// Puts a program together, operation by operation.
#pragma once

#include <array>
#include <vector>

#include "models/schedule/program.h"

namespace epsim {

class ProgramBuilder {
 public:
  // Adds `operation` behind all others, waiting for those `after` and for the last one of each of its streams.  Returns
  // its place.  Places below 0 stand for nothing.
  int Add(Operation operation, std::vector<int> after);
  // Marks the last operation that was added.
  void Mark(EplbHook hook, bool at_finish);
  // REQUIRES: the last operation waits for all others.
  Program Finish();

 private:
  // A place in each stream, counted from 1; 0: before its beginning.
  struct Reach {
    std::array<int, 2> of = {};
    void Extend(const Reach& other);
    bool Covers(const Reach& other) const { return of[0] >= other.of[0] && of[1] >= other.of[1]; }
  };

  Program program_;
  std::vector<Reach> reach_;                        // [operations]: itself, and all that it waits for, directly or not.
  std::array<int, 2> last_ = {-1, -1}, size_ = {};  // Of each stream.
};

}  // namespace epsim
