#include "models/schedule/program_builder.h"

#include <algorithm>
#include <utility>

#include "engine/check.h"

namespace epsim {

void ProgramBuilder::Reach::Extend(const Reach& other) {
  for (size_t stream = 0; stream < of.size(); ++stream) of[stream] = std::max(of[stream], other.of[stream]);
}

int ProgramBuilder::Add(Operation operation, std::vector<int> after) {
  const bool exchanges = operation.is_exchange(), computes = StreamOf(operation.kind) == GpuStream::kCompute;
  if (computes) after.push_back(last_[0]);
  if (exchanges) after.push_back(last_[1]);
  std::sort(after.begin(), after.end());
  after.erase(std::unique(after.begin(), after.end()), after.end());
  if (!after.empty() && after.front() < 0) after.erase(after.begin());
  // Later ones cover earlier ones.
  for (size_t i = after.size(); i-- > 0;) {
    const bool covered = std::any_of(after.begin() + static_cast<std::ptrdiff_t>(i) + 1, after.end(),
                                     [&](int other) { return reach_[other].Covers(reach_[after[i]]); });
    if (covered) after.erase(after.begin() + static_cast<std::ptrdiff_t>(i));
  }

  const int place = static_cast<int>(program_.operations.size());
  Reach reach;
  for (const int other : after) {
    EPSIM_CHECK(other < place);
    reach.Extend(reach_[other]);
  }
  if (computes) reach.of[0] = ++size_[0], last_[0] = place;
  if (exchanges) reach.of[1] = ++size_[1], last_[1] = place;
  operation.after = std::move(after);
  operation.exchanges = reach.of[1];
  if (exchanges) {
    program_.exchanges.push_back(place);
    EPSIM_CHECK(operation.exchanges == static_cast<int>(program_.exchanges.size()));
  }
  reach_.push_back(reach);
  program_.operations.push_back(std::move(operation));
  return place;
}

void ProgramBuilder::Mark(EplbHook hook, bool at_finish) {
  EPSIM_CHECK(!program_.operations.empty());
  const int last = static_cast<int>(program_.operations.size()) - 1;
  EPSIM_CHECK(at_finish || program_.hooks.empty() || program_.hooks.back().operation < last ||
              !program_.hooks.back().at_finish);
  program_.hooks.push_back({hook, last, at_finish});
}

Program ProgramBuilder::Finish() {
  EPSIM_CHECK(!program_.operations.empty());
  EPSIM_CHECK(reach_.back().of == size_);
  program_.computing.resize(program_.exchanges.size() + 1);
  for (size_t i = 0; i < program_.operations.size(); ++i) {
    const Operation& operation = program_.operations[i];
    if (!operation.is_exchange()) program_.computing[operation.exchanges].push_back(static_cast<int>(i));
  }
  return std::move(program_);
}

}  // namespace epsim
