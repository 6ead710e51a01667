#include "policies/placement/slot_alignment.h"

#include <algorithm>
#include <vector>

#include "engine/check.h"
#include "policies/placement/assignment.h"

namespace epsim {

void AlignSlots(absl::Span<const LogicalExpert> before, int slots_per_rank, absl::Span<LogicalExpert> after) {
  EPSIM_CHECK(slots_per_rank > 0 && before.size() == after.size() && after.size() % slots_per_rank == 0);
  const size_t width = slots_per_rank;
  std::vector<LogicalExpert> newcomers;
  std::vector<char> kept(width);
  for (size_t rank = 0; rank < after.size(); rank += width) {
    const absl::Span<const LogicalExpert> old_row = before.subspan(rank, width);
    const absl::Span<LogicalExpert> row = after.subspan(rank, width);
    std::fill(kept.begin(), kept.end(), false);
    newcomers.clear();
    for (LogicalExpert expert : row) {
      size_t slot = 0;
      while (slot < width && (kept[slot] || old_row[slot] != expert)) ++slot;
      if (slot < width) {
        kept[slot] = true;
      } else {
        newcomers.push_back(expert);
      }
    }
    auto newcomer = newcomers.begin();
    for (size_t slot = 0; slot < width; ++slot) row[slot] = kept[slot] ? old_row[slot] : *newcomer++;
  }
}

void MatchRanks(absl::Span<const LogicalExpert> before, int slots_per_rank, absl::Span<LogicalExpert> after) {
  EPSIM_CHECK(slots_per_rank > 0 && before.size() == after.size() && after.size() % slots_per_rank == 0);
  const size_t width = slots_per_rank, ranks = after.size() / width;
  const auto experts = static_cast<size_t>(*std::max_element(after.begin(), after.end())) + 1;
  // copies[rank, row]: slots that get another expert if the row goes to the rank.
  std::vector<int64_t> copies(ranks * ranks);
  std::vector<int> there(experts);  // Copies of each expert on the rank that the row has not used.
  for (size_t rank = 0; rank < ranks; ++rank) {
    for (size_t row = 0; row < ranks; ++row) {
      const absl::Span<const LogicalExpert> new_row = after.subspan(row * width, width);
      for (LogicalExpert expert : new_row) there[Index(expert)] = 0;
      for (LogicalExpert expert : before.subspan(rank * width, width)) {
        if (expert != kNoExpert && Index(expert) < experts) ++there[Index(expert)];
      }
      for (LogicalExpert expert : new_row) copies[rank * ranks + row] += --there[Index(expert)] < 0;
      for (LogicalExpert expert : before.subspan(rank * width, width)) {
        if (expert != kNoExpert && Index(expert) < experts) there[Index(expert)] = 0;
      }
    }
  }
  const std::vector<LogicalExpert> rows(after.begin(), after.end());
  const std::vector<int> row_of_rank = LeastCostAssignment(copies, static_cast<int>(ranks));
  for (size_t rank = 0; rank < ranks; ++rank) {
    const auto begin = rows.begin() + static_cast<std::ptrdiff_t>(row_of_rank[rank] * width);
    std::copy(begin, begin + static_cast<std::ptrdiff_t>(width),
              after.begin() + static_cast<std::ptrdiff_t>(rank * width));
  }
  AlignSlots(before, slots_per_rank, after);
}

}  // namespace epsim
