// Threads for the layers of a step.
#pragma once

#include <tbb/global_control.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include "absl/functional/function_ref.h"

namespace epsim {

class Workers {
 public:
  explicit Workers(int threads)
      : limit_(tbb::global_control::max_allowed_parallelism, static_cast<size_t>(threads)), arena_(threads) {}

  // body(i) for 0 <= i < n.  The bodies write to places of their own.
  template <typename Body>
  void ForEach(int n, const Body& body) {
    if (arena_.max_concurrency() == 1) {
      for (int i = 0; i < n; ++i) body(i);
    } else {
      arena_.execute([&] { tbb::parallel_for(0, n, body); });
    }
  }
  // The same, as others take it.
  auto for_each() {
    return [this](int n, absl::FunctionRef<void(int)> body) { ForEach(n, body); };
  }

 private:
  tbb::global_control limit_;  // More threads than cores are allowed: the number asked for is the number used.
  tbb::task_arena arena_;
};

}  // namespace epsim
