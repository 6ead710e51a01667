#include "models/communication/exchange.h"

#include "gtest/gtest.h"
#include "tests/models/communication/site.h"

namespace epsim {
namespace {

// NVLink of 100 GB/s and 1 us, NICs of 10 GB/s and 2 us; two nodes of 2.
class LoneExchange : public ::testing::Test {
 protected:
  LoneExchange() : site_(4, 2, 1024, 8, 2) { ClearExchange(4, &exchange_); }
  void Move(int source, int destination, int64_t bytes) { exchange_.traffic.bytes[source * 4 + destination] = bytes; }
  double Time() const { return Us(LoneExchangeTime(site_.cluster, exchange_)); }

  Site site_;
  Exchange exchange_;
};

TEST_F(LoneExchange, NothingTakesNoTime) { EXPECT_EQ(Time(), 0); }

// The NIC of rank 2 receives 30 kB at 8 GB/s: 3.75 us and 2 us of latency; NVLink carries 1 MB at 50 GB/s: 20 us.
TEST_F(LoneExchange, WaitsForTheBusiestLink) {
  exchange_.traffic.efficiency = {.node = 0.5, .network = 0.8};
  Move(0, 2, 10'000);
  Move(1, 2, 20'000);
  EXPECT_DOUBLE_EQ(Time(), 5.75);
  Move(0, 1, 1'000'000);
  EXPECT_DOUBLE_EQ(Time(), 22);
}

TEST_F(LoneExchange, TakesTheNicsIfToldTo) {
  Move(0, 1, 10'000);
  EXPECT_DOUBLE_EQ(Time(), 1.1);
  exchange_.traffic.way = Way::kNetwork;
  EXPECT_DOUBLE_EQ(Time(), 3);
}

TEST_F(LoneExchange, WaitsForKernels) {
  Move(0, 1, 10'000);
  exchange_.launch = std::chrono::microseconds(5);
  EXPECT_DOUBLE_EQ(Time(), 6.1);
  exchange_.busy[3] = std::chrono::microseconds(4);
  EXPECT_DOUBLE_EQ(Time(), 9);
  exchange_.floor = std::chrono::microseconds(20);
  EXPECT_DOUBLE_EQ(Time(), 20);
}

}  // namespace
}  // namespace epsim
