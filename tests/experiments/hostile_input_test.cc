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
  ExpectProblem(run + "kernel_floor=100 s'", 2, {"kernel_floor: \"100 s\" is not from 0 to 1 s"});
  ExpectProblem(run + "kernel_floor=8000000 s'", 2, {"kernel_floor: \"8000000 s\" is not from 0 to 1 s"});
  ExpectProblem(run + "grouped_gemm_floor=2 s'", 2, {"grouped_gemm_floor: \"2 s\" is not from 0 to 1 s"});
  ExpectProblem(run + "mla_decode_floor=2 s'", 2, {"mla_decode_floor: \"2 s\" is not from 0 to 1 s"});
  ExpectProblem(run + "memory_efficiency=1e-300'", 2, {"memory_efficiency is 1e-300; it must be from 0.001 to 1"});
  ExpectProblem(run + "compute_efficiency=1e-30'", 2, {"compute_efficiency is 1e-30; it must be from 0.001 to 1"});
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
    gpu { name: "gpu" memory: "1000 PB" memory_bandwidth: "1 MB/s" bf16: "1 GFLOP/s" }
    nvlink { bandwidth: "1 MB/s" latency: "1 s" } nic { bandwidth: "1 MB/s" latency: "1 s" })");
  ExpectProblem("run " + experiment_ + " --out " + P("out/a") +
                    " --set costs.roofline.memory_efficiency=0.001 --set costs.roofline.compute_efficiency=0.001",
                2, {"step 20, of 32 tokens, takes 600 s of simulated time or more"});
}

// Steps of minutes, thousands of them: the clock would go on, but not without end.
TEST_F(HostileInput, ARunOfMonthsIsRefused) {
  WriteTrace("small.eptrace", 4000, 40);
  const std::string platform = ReadFile(P("platform.txtpb"));
  WriteFile("platform.txtpb", absl::StrReplaceAll(platform, {{"1 TB/s", "1 MB/s"}}));
  ExpectProblem("run " + experiment_ + " --out " + P("out/a") +
                    " --set workload.continuous.running_requests_per_rank=1 --set costs.roofline.memory_efficiency=0.3"
                    " --set costs.roofline.kernel_floor=1s",
                2, {"passes 30 days of simulated time, the longest run"});
}

TEST_F(HostileInput, WrongFlagsAreNamedInOneLine) {
  const std::string commands = "; the commands are run, compare, check, list, place, trace (see `epsim --help`)";
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
