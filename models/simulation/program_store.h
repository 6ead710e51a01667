// Keeps the programs of forward passes: one can be long, and a run has few shapes of batch.
#pragma once

#include <deque>

#include "models/schedule/program.h"
#include "models/simulation/forward_pass.h"

namespace epsim {

class ProgramStore {
 public:
  // Valid until the next call.
  const Program& Get(const ForwardContext& context, const ProgramFacts& facts, const BatchShape& shape) {
    for (const Entry& entry : entries_) {
      if (entry.facts == facts && entry.shape == shape) return entry.program;
    }
    if (entries_.size() == kMost) entries_.pop_front();
    entries_.push_back({facts, shape, MakeProgram(context.schedule, *context.model, facts, shape)});
    return entries_.back().program;
  }

 private:
  static constexpr size_t kMost = 16;
  struct Entry {
    ProgramFacts facts;
    BatchShape shape;
    Program program;
  };
  std::deque<Entry> entries_;
};

}  // namespace epsim
