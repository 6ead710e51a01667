// What no user means and some will type: every mistake is one line with an exit code, and leaves nothing behind.
#include <sys/wait.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "tests/experiments/small_run.h"

namespace epsim {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

struct Outcome {
  int exit_code;
  std::string out, err;
};

class HostileInput : public SmallRun {
 protected:
  Outcome Epsim(const std::string& arguments, const std::string& out = "") {
    const std::string err = (folder_ / "stderr").string();
    const std::string results = out.empty() ? (folder_ / "stdout").string() : out;
    const int status =
        std::system(absl::StrCat(EPSIM_BINARY, " ", arguments, " >", results, " 2>", err, " </dev/null").c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, out.empty() ? ReadFile(results) : "", ReadFile(err)};
  }
  std::string P(const std::string& name) { return (folder_ / name).string(); }

  // One line on stderr that begins with the program's name, and the exit code.
  void ExpectProblem(const std::string& arguments, int exit_code, const std::vector<std::string>& parts,
                     const std::string& out = "") {
    SCOPED_TRACE(arguments);
    const Outcome outcome = Epsim(arguments, out);
    EXPECT_EQ(outcome.exit_code, exit_code) << outcome.err;
    EXPECT_THAT(outcome.out, IsEmpty());
    EXPECT_THAT(outcome.err, StartsWith("epsim: "));
    for (const std::string& part : parts) EXPECT_THAT(outcome.err, HasSubstr(part));
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    EXPECT_FALSE(std::filesystem::exists(folder_ / "out"));
  }
  // The file of that name with `before` replaced; a run of it is refused.
  void ExpectRefused(const std::string& name, const std::string& before, const std::string& after,
                     const std::vector<std::string>& parts) {
    const std::string whole = ReadFile(P(name));
    ASSERT_THAT(whole, HasSubstr(before));
    WriteFile(name, absl::StrReplaceAll(whole, {{before, after}}));
    ExpectProblem(absl::StrCat("run ", experiment_, " --out ", P("out/a")), 2, parts);
    WriteFile(name, whole);
  }
};

TEST_F(HostileInput, CostsThatNoGpuHas) {
  const std::string run = "run " + experiment_ + " --out " + P("out/a") + " --set 'costs.roofline.";
  ExpectProblem(run + "gemm.floor=100 s'", 2, {"roofline.gemm.floor: \"100 s\" is not from 0 to 1 s"});
  ExpectProblem(run + "gemm.floor=8000000 s'", 2, {"roofline.gemm.floor: \"8000000 s\" is not from 0 to 1 s"});
  ExpectProblem(run + "gemm.grouped_floor=2 s'", 2, {"roofline.gemm.grouped_floor: \"2 s\" is not from 0 to 1 s"});
  ExpectProblem(run + "attention.decode_floor=2 s'", 2,
                {"roofline.attention.decode_floor: \"2 s\" is not from 0 to 1 s"});
  ExpectProblem(run + "gemm.memory_efficiency=1e-300'", 2, {"gemm.memory_efficiency: 1e-300 is not in [0.001, 1]"});
  ExpectProblem(run + "gemm.compute_efficiency=1e-30'", 2, {"gemm.compute_efficiency: 1e-30 is not in [0.001, 1]"});
}

TEST_F(HostileInput, PlatformsThatNobodyBuilds) {
  ExpectRefused("platform.txtpb", "memory_bandwidth: \"1 TB/s\"", "memory_bandwidth: \"1 B/s\"",
                {"gpu.memory_bandwidth: \"1 B/s\" is not from 1 MB/s to 1 EB/s"});
  ExpectRefused("platform.txtpb", "100 GB/s", "1 B/s", {"nvlink.bandwidth: \"1 B/s\" is not from 1 MB/s to 1 EB/s"});
  ExpectRefused("platform.txtpb", "25 GB/s", "1.5e6 TB/s",
                {"nic.bandwidth: \"1.5e6 TB/s\" is not from 1 MB/s to 1 EB/s"});
  ExpectRefused("platform.txtpb", "100 TFLOP/s", "1e-300 GFLOP/s",
                {"gpu.bf16: \"1e-300 GFLOP/s\" is not from 1 GFLOP/s to 1e9 PFLOP/s"});
  ExpectRefused("platform.txtpb", "100 TFLOP/s", "1e300 PFLOP/s",
                {"platform.txtpb:3:", "bf16: \"1e300 PFLOP/s\" is out"});
  ExpectRefused("platform.txtpb", "1 us", "10000 s", {"nvlink.latency: \"10000 s\" is not from 0 to 1 s"});
}

TEST_F(HostileInput, ModelsThatNobodyTrains) {
  ExpectRefused("model.txtpb", "hidden: 1024", "hidden: 1048576",
                {"model.txtpb: ", "hidden is 1048576; the largest is 65536"});
  ExpectRefused("model.txtpb", " heads: 8", " heads: 1048576", {"heads is 1048576; the largest is 65536"});
  ExpectRefused("model.txtpb", "head_dim: 128", "head_dim: 1048576", {"head_dim is 1048576; the largest is 65536"});
  ExpectRefused("model.txtpb", "layers: 3", "layers: 4096", {"layers is 4096; the largest is 1024"});
}

// Everything at the edge of its range: 65,536 heads of 65,536 values on 65,536 inputs are 2^49 operations a token and
// matrix, at 1e6 a second 18 years.  The step is refused, not its time invented.
TEST_F(HostileInput, AStepOfYearsIsRefused) {
  WriteFile("model.txtpb", R"(
    name: "huge" layers: 1024 moe_layers: 2 hidden: 65536 dense_intermediate: 1048576
    experts: 16 top_k: 4 moe_intermediate: 1048576 shared_experts: 1 shared_intermediate: 1048576
    expert_groups: 1 top_groups: 1 heads: 65536 gqa { kv_heads: 65536 head_dim: 65536 } vocabulary: 1048576
    scoring: SOFTMAX)");
  WriteFile("platform.txtpb", R"(
    description: "an abacus" gpus_per_node: 4
    gpu { name: "gpu" memory: "1000 PB" memory_bandwidth: "1 MB/s" bf16: "1 GFLOP/s" sms: 100 }
    nvlink { bandwidth: "1 MB/s" latency: "1 s" } nic { bandwidth: "1 MB/s" latency: "1 s" })");
  ExpectProblem(
      "run " + experiment_ + " --out " + P("out/a") +
          " --set costs.roofline.gemm.memory_efficiency=0.001 --set costs.roofline.gemm.compute_efficiency=0.001",
      2, {"step 20, of 32 tokens, takes 600 s of simulated time or more"});
}

// Steps of minutes, thousands of them: the clock would go on, but not without end.
TEST_F(HostileInput, ARunOfMonthsIsRefused) {
  WriteTrace("small.eptrace", 4000, 40);
  const std::string platform = ReadFile(P("platform.txtpb"));
  WriteFile("platform.txtpb", absl::StrReplaceAll(platform, {{"1 TB/s", "1 MB/s"}}));
  ExpectProblem(
      "run " + experiment_ + " --out " + P("out/a") +
          " --set workload.continuous.running_requests_per_rank=1 --set costs.roofline.gemm.memory_efficiency=0.3"
          " --set costs.roofline.gemm.floor=1s",
      2, {"passes 30 days of simulated time, the longest run"});
}

TEST_F(HostileInput, WrongFlagsAreNamedInOneLine) {
  const std::string commands =
      "; the commands are run, compare, check, list, place, maxload, validate, fit, calibrate, trace (see `epsim "
      "--help`)";
  ExpectProblem("", 2, {"epsim: no command after `epsim`" + commands});
  ExpectProblem("rum", 2, {"epsim: `epsim` has no command \"rum\"" + commands});
  ExpectProblem("--nonsense", 2, {"epsim: `epsim` has no flag --nonsense" + commands});
  ExpectProblem("trace", 2, {"no command after `epsim trace`; the commands are import, info, verify, slice, synth"});
  ExpectProblem("trace inof x", 2, {"`epsim trace` has no command \"inof\"; the commands are import, info"});
  ExpectProblem("run", 2, {"EXPERIMENT", "(see `epsim run --help`)"});
  ExpectProblem("run x --nonsense", 2, {"--nonsense", "(see `epsim run --help`)"});
  ExpectProblem("run x --threads many", 2, {"--threads", "many", "(see `epsim run --help`)"});
  ExpectProblem("place --policy eplb", 2, {"--load", "(see `epsim place --help`)"});
  ExpectProblem("list polices", 2, {"polices", "policies", "(see `epsim list --help`)"});
}

// Every one says what would be feasible.
TEST_F(HostileInput, StrategiesAndSchedulesThatCannotRun) {
  // Layers as wide as low latency has kernels for, and narrow experts.
  WriteFile("model.txtpb", absl::StrReplaceAll(ReadFile(P("model.txtpb")), {{"hidden: 1024", "hidden: 2048"}}));
  const auto refuse = [&](const std::string& set, const std::vector<std::string>& parts) {
    ExpectProblem(absl::StrCat("run ", experiment_, " --out ", P("out/a"), " ", set), 2, parts);
  };
  const std::string h100 = "--set platform=h100-sxm ";
  refuse(h100 + "--set ranks=24 --set 'communication=deepep_normal {}'",
         {"communication.deepep_normal: 24 ranks on 3 nodes of 8; 2, 4, 8 or 16 nodes of 8 would do"});
  refuse("--set 'communication=deepep_normal {}'", {"8 ranks on 2 nodes of 4; 2, 4, 8 or 16 nodes of 8 would do"});
  refuse(h100 + "--set ranks=16 --set 'communication=nvlink_one_sided {}'",
         {"communication.nvlink_one_sided: 16 ranks lie in 2 NVLink domains; at most 8, one domain, would do"});
  refuse("--set 'communication=deepep_low_latency { max_tokens_per_rank: 3 }'",
         {"communication.deepep_low_latency: 4 tokens of one rank", "a higher max_tokens_per_rank", "would do"});
  refuse(h100 + "--set 'communication=deepep_normal {}' --set schedule.max_tokens=8",
         {"communication.deepep_normal: 4 chunks a layer", "allgather_reducescatter would do"});
  refuse(h100 + "--set communication.deepep_normal.sms=132",
         {"holds 132 streaming multiprocessors, but gpu \"NVIDIA H100 80 GB SXM\" has 132; fewer would do"});
  refuse(h100 + "--set 'schedule=fused {}' --set 'communication=deepep_normal {}'",
         {"schedule.fused: communication deepep_normal", "all_to_all or an external schedule would do"});
  refuse(
      "--set schedule.external.chunk_overlap=true --set schedule.max_tokens=16",
      {"schedule.external.chunk_overlap: communication all_to_all", "allgather_reducescatter or all_reduce would do"});
  refuse("--set 'schedule=external { two_batch_overlap {} } max_tokens: 16'",
         {"schedule.max_tokens: 16 with external.two_batch_overlap", "leave out one"});
  refuse("--set schedule.mtp_runs=1", {"schedule.mtp_runs: 1, but model small has no layers", "0 would do"});
  refuse("--set workload.continuous.running_requests_per_rank=9 --set schedule.max_tokens=1 --set planning.fraction=0",
         {"schedule.max_tokens: 1 cuts 8 ranks of up to 9 tokens into 72 chunks", "would do"});
}

TEST_F(HostileInput, BackendsThatCannotRunIt) {
  const auto refuse = [&](const std::string& set, const std::vector<std::string>& parts) {
    ExpectProblem(absl::StrCat("run ", experiment_, " --out ", P("out/a"), " --set platform=h100-sxm ", set), 2, parts);
  };
  refuse("--set backend=nobody/knows", {"no backend \"nobody/knows\"; there are ", "tensorrt_llm/cutlass"});
  refuse(
      "--set backend=tensorrt_llm/cutlass --set costs.precision.expert_weights=NVFP4"
      " --set costs.precision.expert_activations=NVFP4",
      {"precision.expert_activations: NVFP4, but gpu \"NVIDIA H100 80 GB SXM\" has no fp4 units; BF16 would do"});
}

TEST_F(HostileInput, NetworksThatAreNotThere) {
  const std::string run = "run " + experiment_ + " --out " + P("out/a") + " ";
  ExpectProblem(run + "--set 'overrides=link { name: \"nvlink 99 out\" bandwidth: \"1 GB/s\" }'", 2,
                {"overrides.link.name: no link \"nvlink 99 out\"; there are nvlink 0 to 7", "nic 0 to 7"});
  ExpectProblem(run + "--set 'overrides=gpu { rank: 8 speed: 0.5 }'", 2, {"overrides.gpu.rank: 8 is not below 8"});
  ExpectProblem(run + "--set ranks=6", 2, {"ranks: 6 leave a node of 4 partly used; 4 or 8 would fit"});
  ExpectProblem(run + "--set ranks=128 --set 'network=simgrid {}'", 2, {"network.simgrid: ", "network.max_min"});
  ExpectRefused("platform.txtpb", "25 GB/s", "0 GB/s", {"platform.txtpb:6:", "\"0 GB/s\" is out of range"});
  ExpectRefused("platform.txtpb", "nic {", "fabric { wiring: FAT_TREE } nic {", {"fabric.leaf: missing"});
  ExpectRefused("platform.txtpb", "nic { bandwidth: \"25 GB/s\" latency: \"3 us\" }", "",
                {"ranks: 8 need several nodes of 4, but the platform has no nic to join them; at most 4 would fit"});
}

TEST_F(HostileInput, CasesThatCannotBeRead) {
  WriteFile("broken.jsonl", "{\"id\": \"x\"\n");
  for (const std::string command : {"validate ", "fit "}) {
    ExpectProblem(command + P("absent.jsonl"), 2, {"absent.jsonl: cannot be read"});
    ExpectProblem(command + P("broken.jsonl"), 2, {"broken.jsonl:1: "});
    ExpectProblem(command, 2, {"CASES", "(see `epsim " + command + "--help`)"});
  }
  ExpectProblem("validate " + std::string(EPSIM_CASES) + " --kind kicks", 2,
                {"--kind kicks: ", " has no case of it; it has ep_all_to_all"});
  ExpectProblem("fit " + std::string(EPSIM_CASES) + " --library bookshop", 2,
                {"--library bookshop: not in the plan; it has ", "nccl"});
  ExpectProblem("fit " + std::string(EPSIM_CASES) + " --plan " + P("absent.txtpb"), 2, {"absent.txtpb"});
}

// A file, where a folder is needed.
TEST_F(HostileInput, PredictionsThatCannotBeWritten) {
  WriteFile("file", "");
  ExpectProblem("validate " + std::string(EPSIM_CASES) + " --kind nccl --csv " + P("file/cases.csv"), 1,
                {"file/cases.csv: cannot create"});
  ExpectProblem("fit " + std::string(EPSIM_CASES) + " --library nvlink_one_sided --out " + P("file/out"), 1,
                {"file/out", "cannot create"});
}

TEST_F(HostileInput, CtrlCInTheMiddleOfAFitLeavesNothing) {
  const std::string script = absl::StrCat("timeout --preserve-status -s INT 0.5 ", EPSIM_BINARY, " fit ", EPSIM_CASES,
                                          " --out ", P("out"), " >", P("stdout"), " 2>", P("stderr"));
  const auto begin = std::chrono::steady_clock::now();
  const int status = std::system(script.c_str());
  const auto took = std::chrono::steady_clock::now() - begin;
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 1) << ReadFile(P("stderr"));
  EXPECT_EQ(ReadFile(P("stderr")), "epsim: interrupted\n");
  EXPECT_THAT(ReadFile(P("stdout")), IsEmpty());
  EXPECT_LT(took, std::chrono::seconds(10));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out"));
}

TEST_F(HostileInput, ASeedIsAWholeNumber) {
  for (const std::string seed : {"-1", "1.5", "18446744073709551616", "x"}) {
    const std::string problem = "--seed: " + seed + " is not a whole number from 0 to 2^64 - 1";
    ExpectProblem("run " + experiment_ + " --seed " + seed, 2, {problem});
    ExpectProblem("place --policy eplb --load x --slots 8 --ranks 4 --seed " + seed, 2, {problem});
    ExpectProblem("trace synth --preset balanced --out " + P("out") + " --seed " + seed, 2, {problem});
  }
  EXPECT_EQ(Epsim("check " + experiment_ + " --seed 18446744073709551615").exit_code, 0);
  ExpectProblem("trace synth --preset balanced --out " + P("out") + " --requests -1", 2,
                {"--requests", "-1 not in range 1 to 4294967295"});
}

TEST_F(HostileInput, AFullDiskUnderStdoutIsNoSuccess) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  for (const std::string& command : {std::string("list"), "check " + experiment_, "run " + experiment_,
                                     "trace info " + P("small.eptrace"), std::string("--help")}) {
    ExpectProblem(command, 1, {"stdout: cannot write"}, "/dev/full");
  }
}

TEST_F(HostileInput, AFailedRunTakesAllItsFoldersAlong) {
  const std::string run = "run " + experiment_ + " --out " + P("out/a/b");
  ExpectProblem(run + " --trace " + P("absent.eptrace"), 2, {"absent.eptrace"});
  std::string bytes = ReadFile(P("small.eptrace"));
  bytes[bytes.size() / 2] ^= 1;
  WriteFile("small.eptrace", bytes);
  ExpectProblem(run, 2, {"small.eptrace"});
}

// The second signal of a pair, as `timeout` and terminals send it, asks for nothing new: the run still ends in order.
TEST_F(HostileInput, AnInterruptionThatArrivesTwiceIsOne) {
  WriteTrace("small.eptrace", 4000, 400);
  const std::string script =
      absl::StrCat("( ", EPSIM_BINARY, " run ", experiment_,
                   " --threads 1 --set workload.continuous.running_requests_per_rank=1 --out ", P("out"), " 2>",
                   P("stderr"), " & sleep 0.3; kill -TERM $!; sleep 0.01; kill -TERM $! 2>/dev/null; wait $! )");
  const int status = std::system(script.c_str());
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 1);
  EXPECT_EQ(ReadFile(P("stderr")), "epsim: interrupted\n");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out"));
}

// 2,048 ranks have four million pairs: a step takes seconds, and the answer comes within it.
TEST_F(HostileInput, CtrlCIsHeardWithinAStepOfManyRanks) {
  const std::string script = absl::StrCat("timeout --preserve-status -s INT 2 ", EPSIM_BINARY, " run ", experiment_,
                                          " --set ranks=2048 --set redundant_slots_per_rank=3 --set model=deepseek-v3 "
                                          "--set workload.batching=recorded --trace ",
                                          P("wide.eptrace"), " --out ", P("out"), " 2>", P("stderr"));
  ASSERT_EQ(Epsim("trace synth --preset one_hot_expert --model deepseek-v3 --layers 58 --experts 256 --top-k 8 "
                  "--ranks 256 --tokens-per-rank 16 --steps 10 --raw --out " +
                  P("wide.eptrace"))
                .exit_code,
            0);
  const auto begin = std::chrono::steady_clock::now();
  const int status = std::system(script.c_str());
  const auto took = std::chrono::steady_clock::now() - begin;
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 1) << ReadFile(P("stderr"));
  EXPECT_EQ(ReadFile(P("stderr")), "epsim: interrupted\n");
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr std::chrono::seconds kLongest(15);  // Every event takes ten times as long.
#else
  constexpr std::chrono::seconds kLongest(3);
#endif
  EXPECT_LT(took, kLongest);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out"));
}

}  // namespace
}  // namespace epsim
