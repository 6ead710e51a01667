// What a routing policy's kernel takes on a rank, in one layer.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "engine/units.h"
#include "policies/routing/routing.pb.h"

namespace epsim {

class RoutingKernelCost {
 public:
  // `complete`: CompleteRoutingConfig() has filled in the defaults.
  static absl::StatusOr<RoutingKernelCost> Create(const RoutingKernel& complete, int experts);

  // floor + tokens * experts * per_entry, at most kLongestStep.
  Duration Time(int64_t tokens) const;
  // Of the plain kernel's float32 matrix, tokens * experts * 4 bytes; 0 for the fused one.
  Bytes Memory(int64_t tokens) const;
  // "plain, 200 us + 190 ps a token and expert".
  const std::string& description() const { return description_; }

 private:
  bool plain_ = true;
  int experts_ = 0;
  Duration floor_{}, per_entry_{};
  std::string description_;
};

}  // namespace epsim
