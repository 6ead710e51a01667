#include "tests/experiments/small_run.h"

#include <unistd.h>

#include <cmath>
#include <fstream>
#include <sstream>

#include "engine/random_stream.h"
#include "traces/format/trace_writer.h"

namespace epsim {

void SmallRun::SetUp() {
  std::string pattern = (std::filesystem::temp_directory_path() / "epsim_test_XXXXXX").string();
  ASSERT_NE(mkdtemp(pattern.data()), nullptr);
  folder_ = pattern;
  WriteFile("model.txtpb", R"(
    name: "small" layers: 3 moe_layers: 2 hidden: 1024 dense_intermediate: 2048
    experts: 16 top_k: 4 moe_intermediate: 512 shared_experts: 1 shared_intermediate: 512
    expert_groups: 1 top_groups: 1 heads: 8 gqa { kv_heads: 2 head_dim: 128 } vocabulary: 1000 scoring: SOFTMAX)");
  WriteFile("platform.txtpb", R"(
    description: "two nodes of four" gpus_per_node: 4
    gpu { name: "gpu" memory: "80 GB" memory_bandwidth: "1 TB/s" bf16: "100 TFLOP/s" sms: 100 compute_capability: 90 }
    nvlink { bandwidth: "100 GB/s" latency: "1 us" }
    pcie { bandwidth: "20 GB/s" latency: "2 us" }
    nic { bandwidth: "25 GB/s" latency: "3 us" })");
  WriteTrace("small.eptrace", 64, 40);
  experiment_ = WriteFile("small.experiment", R"(
    trace: "small.eptrace" model: "model.txtpb" platform: "platform.txtpb" ranks: 8
    workload { continuous { running_requests_per_rank: 4 } } seed: 7)");
}

void SmallRun::TearDown() { std::filesystem::remove_all(folder_); }

std::string SmallRun::WriteFile(const std::string& name, const std::string& text) {
  const std::string path = (folder_ / name).string();
  std::ofstream(path) << text;
  return path;
}

std::string SmallRun::ReadFile(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

std::string SmallRun::WriteTrace(const std::string& name, int requests, int tokens, double skew) {
  TraceHeader header;
  header.set_schema_version(1);
  header.set_model("small");
  header.set_layers(kLayers);
  header.set_experts(kExperts);
  header.set_top_k(kTopK);
  header.set_id_bytes(1);
  header.set_granularity(REQUEST);
  header.set_source("a test");
  const std::string path = (folder_ / name).string();
  auto writer = TraceWriter::Create(path, header).value();
  RandomStream random(1, name);
  for (int request = 0; request < requests; ++request) {
    std::vector<int32_t> ids;
    for (int i = 0; i < tokens * kLayers; ++i) {
      std::vector<bool> taken(kExperts);
      for (int k = 0; k < kTopK;) {
        const int expert = static_cast<int>(random.Below(kExperts));
        const double weight = 1 + (skew - 1) * (kExperts - 1 - expert) / (kExperts - 1);
        if (taken[expert] || random.Unit() * skew > weight) continue;
        taken[expert] = true;
        ids.push_back(expert);
        ++k;
      }
    }
    RequestInfo info;
    info.set_id(request);
    info.set_tokens(tokens);
    info.set_prompt_tokens(100);
    std::vector<uint32_t> position(tokens), index(tokens, request);
    for (int t = 0; t < tokens; ++t) position[t] = 100 + t;
    const std::vector<uint8_t> phase(tokens, DECODE);
    TokenColumns columns;
    columns.position = position;
    columns.request_index = index;
    columns.phase = phase;
    EXPECT_TRUE(writer->AppendRequest(info, ids, columns).ok());
  }
  EXPECT_TRUE(writer->Finish().ok());
  return path;
}

absl::StatusOr<RunReport> SmallRun::Run(std::vector<std::string> set, RunOptions options) {
  absl::StatusOr<ResolvedExperiment> resolved =
      ResolveExperiment({.path = experiment_, .trace = {}, .set = std::move(set), .seed = {}});
  if (!resolved.ok()) return resolved.status();
  return epsim::Run(*resolved, options);
}

}  // namespace epsim
