#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define EPSIM_CONCAT_INNER(a, b) a##b
#define EPSIM_CONCAT(a, b) EPSIM_CONCAT_INNER(a, b)

// Returns the status of `expression` from the enclosing function unless it is OK.
#define RETURN_IF_ERROR(expression)                                         \
  do {                                                                      \
    if (absl::Status status_ = (expression); !status_.ok()) return status_; \
  } while (false)

// ASSIGN_OR_RETURN(auto x, F()): x = F()'s value, or returns F()'s error from the enclosing function.
#define ASSIGN_OR_RETURN(lhs, expression) ASSIGN_OR_RETURN_INNER(EPSIM_CONCAT(status_or_, __LINE__), lhs, expression)
#define ASSIGN_OR_RETURN_INNER(tmp, lhs, expression) \
  auto tmp = (expression);                           \
  if (!tmp.ok()) return std::move(tmp).status();     \
  lhs = std::move(tmp).value()
