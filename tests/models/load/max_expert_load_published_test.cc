// Question: is the published table, a simulation of few samples, the same quantity?
#include "gtest/gtest.h"
#include "models/load/max_expert_load.h"

namespace epsim {
namespace {

TEST(MaxExpertLoadPublished, WithinOnePerCent) {
  struct Row {
    int64_t batch;
    int chips;
    double published, exact;
  };
  for (const Row& row :
       {Row{4, 1, 30.5121, 30.531006}, {4, 32, 3.18425, 3.174436}, {4, 256, 1.0, 1}, {64, 32, 8.0, 7.9999992}}) {
    const double exact = ExactMaxExpertLoad({.batch = row.batch, .chips = row.chips}).value();
    EXPECT_NEAR(exact, row.published, 0.01 * row.published) << row.batch << " on " << row.chips;
    EXPECT_NEAR(exact, row.exact, 5e-7) << row.batch << " on " << row.chips;  // As the header has it.
  }
}

}  // namespace
}  // namespace epsim
