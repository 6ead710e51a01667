// A cluster with round numbers for the tests of communication strategies: NVLink of 100 GB/s and 1 us, NICs of 10 GB/s
// and 2 us.
#pragma once

#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/text_proto.h"
#include "gtest/gtest.h"
#include "models/communication/communication.h"
#include "platforms/cluster.h"

namespace epsim {

struct Site {
  Site(int ranks, int ranks_per_node, uint32_t hidden, uint32_t experts, uint32_t top_k, NumberType dispatch = BF16) {
    PlatformSpec platform;
    EXPECT_TRUE(ParseTextProto(R"(
        gpu { name: "GPU" memory: "80 GB" memory_bandwidth: "1 TB/s" bf16: "1 PFLOP/s" sms: 100 compute_capability: 90 }
        nvlink { bandwidth: "100 GB/s" latency: "1 us" }
        nic { bandwidth: "10 GB/s" latency: "2 us" })",
                               "platform", &platform)
                    .ok());
    platform.set_gpus_per_node(ranks_per_node);
    Init(platform, ranks, hidden, experts, top_k, dispatch);
  }
  Site(const PlatformSpec& platform, int ranks, uint32_t hidden, uint32_t experts, uint32_t top_k,
       NumberType dispatch = BF16) {
    Init(platform, ranks, hidden, experts, top_k, dispatch);
  }

  // `text`: a CommunicationConfig.
  absl::StatusOr<std::unique_ptr<Communication>> Make(const std::string& text) const {
    CommunicationConfig config;
    const absl::Status status = ParseTextProto(text, "config", &config);
    EXPECT_TRUE(status.ok()) << status;
    return NewCommunication(config, setup);
  }
  // The problem with it; empty if there is none.
  std::string Problem(const std::string& text) const { return std::string(Make(text).status().message()); }

  Cluster cluster;
  CommunicationSetup setup;

 private:
  void Init(const PlatformSpec& platform, int ranks, uint32_t hidden, uint32_t experts, uint32_t top_k,
            NumberType dispatch) {
    auto made = Cluster::Create(platform, ranks);
    EXPECT_TRUE(made.ok()) << made.status();
    cluster = *std::move(made);
    setup.cluster = &cluster;
    setup.model.set_name("model");
    setup.model.set_hidden(hidden);
    setup.model.set_experts(experts);
    setup.model.set_top_k(top_k);
    setup.precision.set_dispatch(dispatch);
    setup.precision.set_combine(BF16);
    setup.slots = (static_cast<int>(experts) + ranks - 1) / ranks * ranks;
    setup.max_tokens_per_rank = 64;
  }
};

// A layer that routes nothing, to be filled in by hand.
inline RoutedLayer EmptyLayer(const Cluster& cluster) {
  const size_t ranks = cluster.ranks();
  RoutedLayer routed;
  routed.tokens_between.assign(ranks * ranks, 0);
  routed.pairs_between.assign(ranks * ranks, 0);
  routed.tokens_to_node.assign(ranks * cluster.nodes(), 0);
  routed.tokens.assign(ranks, 0);
  return routed;
}

// `tokens` of each rank with the model's top-k distinct experts, any of all alike; experts lie on ranks in order, one
// slot each.
// REQUIRES: the ranks divide the experts.
inline RoutedLayer UniformLayer(const Cluster& cluster, const ModelSpec& model, int tokens, uint64_t seed) {
  const int ranks = cluster.ranks(), experts = static_cast<int>(model.experts());
  RoutedLayer routed = EmptyLayer(cluster);
  routed.tokens.assign(ranks, tokens);
  routed.tokens_per_slot.assign(experts, 0);
  std::mt19937_64 random(seed);
  std::vector<int> ids(experts);
  std::iota(ids.begin(), ids.end(), 0);
  for (int source = 0; source < ranks; ++source) {
    for (int token = 0; token < tokens; ++token) {
      std::set<int> owners, nodes;
      for (uint32_t k = 0; k < model.top_k(); ++k) {
        std::swap(ids[k], ids[k + random() % (experts - k)]);
        const int owner = ids[k] / (experts / ranks);
        ++routed.tokens_per_slot[ids[k]];
        ++routed.pairs_between[source * ranks + owner];
        owners.insert(owner);
        nodes.insert(static_cast<int>(Index(cluster.node_of(Rank(owner)))));
      }
      for (int owner : owners) ++routed.tokens_between[source * ranks + owner];
      for (int node : nodes) ++routed.tokens_to_node[source * cluster.nodes() + node];
    }
  }
  routed.pairs = int64_t{ranks} * tokens * model.top_k();
  return routed;
}

// Entries of a traffic matrix that are not zero, as "0>1 30" in order.
inline std::vector<std::string> Entries(const TrafficMatrix& traffic) {
  std::vector<std::string> entries;
  for (int source = 0; source < traffic.ranks; ++source) {
    for (int destination = 0; destination < traffic.ranks; ++destination) {
      const int64_t bytes = traffic.bytes[source * traffic.ranks + destination];
      if (bytes != 0) {
        entries.push_back(std::to_string(source) + ">" + std::to_string(destination) + " " + std::to_string(bytes));
      }
    }
  }
  return entries;
}

inline double Us(Duration duration) { return Microseconds(duration); }

}  // namespace epsim
