#include "traces/synthesis/request_deal.h"

#include <cmath>
#include <map>
#include <vector>

#include "engine/text_proto.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

SynthesisConfig Config() {
  SynthesisConfig config;
  EXPECT_TRUE(ParseTextProto(R"(
    seed: 3
    domains { share: 1 lengths { decode_tokens: 10 } lengths { decode_tokens: 20 } lengths { decode_tokens: 30 } }
    domains { share: 3 lengths { prefill_tokens: 5 } }
  )",
                             "test", &config)
                  .ok());
  return config;
}

TEST(RequestDealTest, DomainsKeepTheirSharesAtAnyTime) {
  const SynthesisConfig config = Config();
  RequestDeal deal(config);
  int second = 0;
  for (int n = 1; n <= 1000; ++n) {
    const RequestDeal::Request request = deal.Next();
    EXPECT_EQ(request.id, static_cast<uint64_t>(n - 1));
    second += request.domain == 1;
    EXPECT_LE(std::abs(second - 0.75 * n), 1.0) << n;
  }
}

TEST(RequestDealTest, EveryLengthComesOnceBeforeAnyComesAgain) {
  const SynthesisConfig config = Config();
  RequestDeal deal(config);
  std::map<uint32_t, int> seen;
  std::vector<uint32_t> order;
  for (int dealt = 0; dealt < 300;) {
    const RequestDeal::Request request = deal.Next();
    if (request.domain != 0) continue;
    ++seen[request.length.decode_tokens()];
    order.push_back(request.length.decode_tokens());
    if (++dealt % 3 != 0) continue;
    for (uint32_t length : {10, 20, 30}) EXPECT_EQ(seen[length], dealt / 3);
  }
  // The passes are shuffled: 100 passes of 3! orders are not all the same.
  bool differ = false;
  for (size_t i = 3; i < order.size(); ++i) differ |= order[i] != order[i % 3];
  EXPECT_TRUE(differ);
}

}  // namespace
}  // namespace epsim
