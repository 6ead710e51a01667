// Does every strategy keep the promises of communication.h?  Every alternative of CommunicationConfig, on clusters of
// every shape, in every format.
#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/communication/token_bytes.h"
#include "tests/models/communication/site.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;

// A config for each alternative of the oneof, with its defaults, and with what else its messages can say.
std::vector<CommunicationConfig> EveryCommunication() {
  std::vector<CommunicationConfig> configs;
  const google::protobuf::OneofDescriptor* strategies =
      CommunicationConfig::descriptor()->FindOneofByName("communication");
  for (int i = 0; i < strategies->field_count(); ++i) {
    CommunicationConfig config;
    config.GetReflection()->MutableMessage(&config, strategies->field(i));
    configs.push_back(config);
  }
  for (const char* text : {"deepep_normal { bf16_dispatch: true }", "deepep_low_latency { rdma_only: true }",
                           "nvlink_one_sided { fp8_combine: true }", "allgather_reducescatter { pad_to_max: true }",
                           "automatic { order: SGLANG }"}) {
    CommunicationConfig config;
    EXPECT_TRUE(ParseTextProto(text, text, &config).ok());
    configs.push_back(config);
  }
  return configs;
}

struct Place {
  const char* platform;
  int ranks;
};
constexpr Place kPlaces[] = {{"h100-sxm", 1},     {"h100-sxm", 2},      {"h100-sxm", 8}, {"h100-sxm", 32},
                             {"gb200-nvl72", 24}, {"gb200-nvl72", 144}, {"l40s", 8},     {"l40s", 16},
                             {"rtx-4090", 4},     {"a100-sxm", 16}};

// `experts` that 1, 2, 4, 8, 16, 24, 32 and 144 ranks divide.
constexpr uint32_t kExperts = 288;

void ForEachFeasible(NumberType dispatch,
                     const std::function<void(const Site&, const CommunicationConfig&, Communication*)>& check) {
  int feasible = 0;
  for (const Place& place : kPlaces) {
    const Site site(*FindPlatform(place.platform), place.ranks, 2048, kExperts, 8, dispatch);
    for (const CommunicationConfig& config : EveryCommunication()) {
      SCOPED_TRACE(std::string(place.platform) + " " + std::to_string(place.ranks) + " " + config.ShortDebugString());
      const auto communication = NewCommunication(config, site.setup);
      if (!communication.ok()) {
        // One line that says what would be feasible.
        const std::string reason(communication.status().message());
        EXPECT_EQ(communication.status().code(), absl::StatusCode::kFailedPrecondition) << reason;
        EXPECT_THAT(reason, HasSubstr("would do"));
        EXPECT_THAT(reason, HasSubstr("communication."));
        EXPECT_EQ(reason.find('\n'), std::string::npos);
        continue;
      }
      ++feasible;
      check(site, config, communication->get());
    }
  }
  EXPECT_GT(feasible, 60);
}

int64_t Sum(const TrafficMatrix& traffic) {
  int64_t sum = 0;
  for (int64_t bytes : traffic.bytes) sum += bytes;
  return sum;
}

void ExpectWellFormed(const Exchange& exchange, int ranks) {
  ASSERT_EQ(exchange.traffic.ranks, ranks);
  ASSERT_EQ(exchange.traffic.bytes.size(), static_cast<size_t>(ranks) * ranks);
  ASSERT_EQ(exchange.busy.size(), static_cast<size_t>(ranks));
  for (int rank = 0; rank < ranks; ++rank) EXPECT_EQ(exchange.traffic.bytes[rank * ranks + rank], 0);
  EXPECT_GE(*std::min_element(exchange.traffic.bytes.begin(), exchange.traffic.bytes.end()), 0);
  EXPECT_GE(*std::min_element(exchange.busy.begin(), exchange.busy.end()), Duration{});
  EXPECT_GE(exchange.launch, exchange.prepare);
  EXPECT_GE(exchange.floor, Duration{});
  for (double efficiency : {exchange.traffic.efficiency.node, exchange.traffic.efficiency.network}) {
    EXPECT_GT(efficiency, 0);
    EXPECT_LE(efficiency, 1);
  }
}

TEST(CommunicationContract, ExchangesAreWellFormedAndWhatComesBackWentOut) {
  for (NumberType dispatch : {BF16, FP8, MXFP8, NVFP4}) {
    ForEachFeasible(dispatch, [&](const Site& site, const CommunicationConfig&, Communication* communication) {
      const int ranks = site.cluster.ranks();
      const RoutedLayer routed = UniformLayer(site.cluster, site.setup.model, 3, 1);
      Exchange out, back, again;
      ClearExchange(1, &again);  // Of another size, to be replaced.
      communication->Dispatch(routed, &out);
      communication->Combine(routed, &back);
      communication->Dispatch(routed, &again);
      ExpectWellFormed(out, ranks);
      ExpectWellFormed(back, ranks);
      EXPECT_EQ(out.traffic.bytes, again.traffic.bytes);
      EXPECT_EQ(out.launch, again.launch);
      EXPECT_EQ(out.traffic.way, again.traffic.way);
      EXPECT_EQ(Sum(back.traffic) > 0, ranks > 1);
      EXPECT_EQ(Sum(out.traffic) > 0, ranks > 1 && communication->footprint().has_dispatch);
      const std::string name = communication->name();
      if (name == "allgather_reducescatter" || name == "all_reduce") return;
      for (int a = 0; a < ranks; ++a) {
        for (int b = 0; b < ranks; ++b) {
          EXPECT_EQ(out.traffic.bytes[a * ranks + b] > 0, back.traffic.bytes[b * ranks + a] > 0);
        }
      }
    });
  }
}

// A rank hears of every token that it has an expert for, and what it sends back holds a result for each.
TEST(CommunicationContract, NoTokenIsLost) {
  ForEachFeasible(FP8, [&](const Site& site, const CommunicationConfig& config, Communication* communication) {
    const int ranks = site.cluster.ranks();
    const RoutedLayer routed = UniformLayer(site.cluster, site.setup.model, 5, 2);
    Exchange out, back;
    communication->Dispatch(routed, &out);
    communication->Combine(routed, &back);
    const int64_t dispatched =
        ActivationBytes(2048, communication->footprint().quantised_dispatch ? FP8 : BF16).count();
    const int64_t combined = config.nvlink_one_sided().fp8_combine() ? 2048 : 4096;
    for (int owner = 0; owner < ranks; ++owner) {
      int64_t visits = 0, received = 0, returned = 0;
      for (int source = 0; source < ranks; ++source) {
        if (source != owner) visits += routed.tokens_between[source * ranks + owner];
        received += out.traffic.bytes[source * ranks + owner];
        returned += back.traffic.bytes[owner * ranks + source];
      }
      if (communication->footprint().has_dispatch) {
        EXPECT_GE(received, visits * dispatched);
      }
      EXPECT_GE(returned, visits * combined);
    }
  });
}

TEST(CommunicationContract, FootprintsAndStatistics) {
  ForEachFeasible(BF16, [&](const Site& site, const CommunicationConfig&, Communication* communication) {
    const CommunicationFootprint footprint = communication->footprint();
    const std::string name = communication->name();
    EXPECT_GE(footprint.sms, 0);
    const uint32_t gpu_sms = site.cluster.platform().gpu().sms();
    if (gpu_sms > 0) {
      EXPECT_LT(footprint.sms, static_cast<int>(gpu_sms));
    }
    if (name == "all_to_all") {
      EXPECT_EQ(footprint.buffers, Bytes(0));
    } else if (site.cluster.ranks() > 1) {
      EXPECT_GT(footprint.buffers, Bytes(0));
    }
    EXPECT_FALSE(footprint.quantised_dispatch);  // Tokens are bf16.
    if (footprint.statistics_ride_along) return;
    Exchange one, ten;
    communication->Statistics(1, &one);
    communication->Statistics(10, &ten);
    ExpectWellFormed(one, site.cluster.ranks());
    EXPECT_EQ(Sum(one.traffic) > 0, site.cluster.ranks() > 1);
    EXPECT_EQ(Sum(ten.traffic), 10 * Sum(one.traffic));
  });
}

// What it does not take it refuses with a reason that says what would do, and a small pass in one piece it takes.
TEST(CommunicationContract, AdmitsOrSaysWhatWouldDo) {
  ForEachFeasible(FP8, [&](const Site&, const CommunicationConfig&, Communication* communication) {
    for (const ForwardShape& shape : {ForwardShape{.max_tokens_per_rank = 64, .chunks = 1},
                                      ForwardShape{.max_tokens_per_rank = 100'000, .chunks = 1},
                                      ForwardShape{.max_tokens_per_rank = 64, .chunks = 7}}) {
      const absl::Status status = communication->Admit(shape);
      if (shape.max_tokens_per_rank == 64 && shape.chunks == 1) {
        EXPECT_TRUE(status.ok()) << status;
      }
      if (!status.ok()) {
        EXPECT_THAT(std::string(status.message()), HasSubstr("would do"));
      }
    }
  });
}

// Every format and every shape of every strategy: the name is one of the schema.
TEST(CommunicationContract, NamesAreThoseOfTheSchema) {
  ForEachFeasible(BF16, [&](const Site&, const CommunicationConfig&, Communication* communication) {
    EXPECT_NE(CommunicationConfig::descriptor()->FindFieldByName(communication->name()), nullptr);
    for (const std::string& note : communication->notes()) EXPECT_EQ(note.find('\n'), std::string::npos);
  });
}

}  // namespace
}  // namespace epsim
