// The program as a user meets it: exit codes, where text goes, one line for a mistake, and no files after one.
#include <sys/wait.h>

#include <csignal>
#include <cstdlib>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/experiments/small_run.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::MatchesRegex;

struct Outcome {
  int exit_code;
  std::string out, err;
};

class CommandLine : public SmallRun {
 protected:
  Outcome Epsim(const std::string& arguments) {
    const std::string out = (folder_ / "stdout").string(), err = (folder_ / "stderr").string();
    const std::string command = std::string(EPSIM_BINARY) + " " + arguments + " >" + out + " 2>" + err + " </dev/null";
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, ReadFile(out), ReadFile(err)};
  }
  std::string P(const std::string& name) { return (folder_ / name).string(); }

  // One line on stderr, nothing on stdout, exit code 2, and no folder at `out`.
  void ExpectBadInput(const std::string& arguments, const std::string& part) {
    const Outcome outcome = Epsim(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << arguments << "\n" << outcome.err;
    EXPECT_THAT(outcome.out, IsEmpty()) << arguments;
    EXPECT_THAT(outcome.err, HasSubstr(part)) << arguments;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    EXPECT_FALSE(std::filesystem::exists(folder_ / "out")) << arguments;
  }
};

TEST_F(CommandLine, RunPrintsTheAnswerAndWritesTheReport) {
  const Outcome outcome = Epsim("run " + experiment_ + " --out " + P("out"));
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("step time"));
  EXPECT_THAT(outcome.out, HasSubstr("60 steps scored (1920 tokens of 2560), 20 planned on; "));
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder_ / "out")) {
    files.push_back(entry.path().filename().string());
  }
  EXPECT_THAT(files, testing::UnorderedElementsAre("manifest.txtpb", "summary.json", "steps.csv", "timeline.json"));
  const auto summary = nlohmann::json::parse(ReadFile(P("out/summary.json")));
  for (const char* key : {"step_time_us", "tokens_per_s", "tokens_per_s_per_gpu", "balancedness", "gpu_utilization",
                          "breakdown_us", "bytes", "limiting", "provenance", "trace"}) {
    EXPECT_TRUE(summary.contains(key)) << key;
  }
  EXPECT_TRUE(nlohmann::json::accept(ReadFile(P("out/timeline.json"))));
  // A header and one line a scored step.
  const std::string csv = ReadFile(P("out/steps.csv"));
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 61);
  // 60 steps are enough for p90 and not for p99.
  EXPECT_FALSE(summary["step_time_us"]["p90"].is_null());
  EXPECT_TRUE(summary["step_time_us"]["p99"].is_null());
}

TEST_F(CommandLine, TheManifestReproducesTheRun) {
  ASSERT_EQ(Epsim("run " + experiment_ + " --set ranks=4 --out " + P("out")).exit_code, 0);
  const std::string manifest = ReadFile(P("out/manifest.txtpb"));
  EXPECT_THAT(manifest, HasSubstr("overrides: \"--set ranks=4\""));
  EXPECT_THAT(manifest, HasSubstr("ranks: 4"));
  EXPECT_THAT(manifest, HasSubstr("small.eptrace"));
}

TEST_F(CommandLine, CompareShowsTheBoundAndTheSpeedUp) {
  const Outcome table = Epsim("compare " + experiment_ + " --out " + P("out"));
  EXPECT_EQ(table.exit_code, 0) << table.err;
  EXPECT_THAT(table.out, HasSubstr("contiguous"));
  EXPECT_THAT(table.out, HasSubstr("oracle (hindsight)"));
  EXPECT_THAT(table.out, HasSubstr("perfect balance (bound)"));
  EXPECT_TRUE(std::filesystem::exists(P("out/comparison.json")));
  EXPECT_TRUE(std::filesystem::exists(P("out/eplb/summary.json")));
}

// Alternatives are compared with the first of the same setting, and the bound leaves out the same steps.
TEST_F(CommandLine, CompareComparesWhatIsComparable) {
  const Outcome outcome = Epsim("compare " + experiment_ + " --vary ranks=4,8 --set planning.fraction=0.5 --json");
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const auto rows = nlohmann::json::parse(outcome.out);
  // Contiguous, EPLB, the oracle, the perfect balance; on 4 ranks, then on 8.
  ASSERT_EQ(rows.size(), 8u);
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(rows[i]["versus"], i < 4 ? "ranks=4, contiguous" : "ranks=8, contiguous");
    EXPECT_EQ(rows[i]["summary"]["trace"]["steps"], rows[i / 4 * 4]["summary"]["trace"]["steps"]);
    EXPECT_EQ(rows[i]["summary"]["hindsight"], i % 4 == 2);
    EXPECT_EQ(rows[i]["summary"]["placement"] == "perfect_balance", i % 4 == 3);
    EXPECT_GE(rows[i / 4 * 4 + 3]["speedup"], rows[i]["speedup"]);
  }
}

TEST_F(CommandLine, AFailedComparisonLeavesNothing) {
  ExpectBadInput("compare " + experiment_ + " --vary ranks=8,6 --out " + P("out"), "6");
  ExpectBadInput("compare " + experiment_ + " --vary ranks=8 --vary ranks=4 --out " + P("out"), "varied twice");
  ExpectBadInput("compare " + experiment_ + " --vary ranks=8,8 --out " + P("out"), "8 stands twice");
}

TEST_F(CommandLine, CheckPrintsTheEffectiveConfiguration) {
  const Outcome outcome = Epsim("check " + experiment_ + " --set placement.policy=eplb");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("redundant_slots_per_rank: 1"));
  EXPECT_THAT(outcome.out, HasSubstr("memory_efficiency:"));
  EXPECT_THAT(outcome.out, HasSubstr("moe_intermediate: 512"));
}

TEST_F(CommandLine, ListComesFromTheSchemaAndTheCatalogues) {
  EXPECT_THAT(Epsim("list policies").out, MatchesRegex("contiguous +[^\n]+\neplb +[^\n]+\n([a-z_]+ +[^\n]+\n)+"));
  EXPECT_THAT(Epsim("list models").out, HasSubstr("deepseek-v3"));
  const auto json = nlohmann::json::parse(Epsim("list --json").out);
  for (const auto& [subject, entries] : json.items()) {
    EXPECT_GT(entries.size(), 0u) << subject;
    for (const auto& [name, doc] : entries.items()) EXPECT_FALSE(doc.get<std::string>().empty()) << subject << name;
  }
  EXPECT_EQ(Epsim("list polices").exit_code, 2);
}

TEST_F(CommandLine, TraceCommands) {
  const auto info = nlohmann::json::parse(Epsim("trace info --json " + P("small.eptrace")).out);
  EXPECT_EQ(info["tokens"], 64 * 40);
  EXPECT_EQ(Epsim("trace verify " + P("small.eptrace")).exit_code, 0);
  EXPECT_EQ(Epsim("trace slice " + P("small.eptrace") + " --requests 0:8 --out " + P("slice.eptrace")).exit_code, 0);
  EXPECT_EQ(nlohmann::json::parse(Epsim("trace info --json " + P("slice.eptrace")).out)["tokens"], 8 * 40);
  EXPECT_EQ(Epsim("trace synth --like " + P("small.eptrace") + " --out " + P("synth.eptrace")).exit_code, 0);
  EXPECT_THAT(Epsim("trace info " + P("synth.eptrace")).out, HasSubstr("synthetic"));
}

TEST_F(CommandLine, ATruncatedTraceCanBeRecovered) {
  const std::string whole = ReadFile(P("small.eptrace"));
  WriteFile("cut.eptrace", whole.substr(0, whole.size() - 20));
  ExpectBadInput("trace verify " + P("cut.eptrace"), "cut.eptrace");
  EXPECT_EQ(Epsim("trace verify " + P("cut.eptrace") + " --recover " + P("saved.eptrace")).exit_code, 0);
  EXPECT_EQ(Epsim("trace verify " + P("saved.eptrace")).exit_code, 0);
}

TEST_F(CommandLine, BadInputIsOneLineAndExitCode2) {
  const std::string run = "run " + experiment_ + " --out " + P("out") + " ";
  ExpectBadInput(run + "--set placment.policy=eplb", "placment");
  ExpectBadInput(run + "--set ranks=many", "ranks");
  ExpectBadInput(run + "--set ranks", "expected path.to.field=value");
  ExpectBadInput(run + "--set costs.roofline.gemm.floor=2", "no unit");
  ExpectBadInput(run + "--set model=gpt-oss-20b", "has 24");
  ExpectBadInput(run + "--trace " + P("model.txtpb"), "model.txtpb");
  ExpectBadInput(run + "--trace " + P("absent.eptrace"), "absent.eptrace");
  ExpectBadInput("run " + P("absent.txtpb"), "absent.txtpb");
  WriteFile("bad.txtpb", "ranks: 8\nplatfrom: \"h100-sxm\"\n");
  ExpectBadInput("run " + P("bad.txtpb") + " --out " + P("out"), "bad.txtpb:2:9");
  ExpectBadInput("trace info " + P("bad.txtpb"), "bad.txtpb");
}

// A library that is none, or that answers wrongly in the middle of a run.
TEST_F(CommandLine, AFaultyPluginIsOneLineAndLeavesNothing) {
  const std::string run = "run " + experiment_ + " --out " + P("out") + " --set placement.policy=plugin ";
  const auto with = [&](const std::string& library, const std::string& options) {
    return run + "--set placement.plugin.library=" + library + " --set 'placement.plugin.options=" + options + "'";
  };
  ExpectBadInput(run, "small.experiment: plugin: library: none named");
  ExpectBadInput(with(P("absent.so"), ""),
                 "placement.plugin.library: " + P("absent.so") + ": cannot open: No such file");
  ExpectBadInput(with(folder_.string(), ""), folder_.string() + ": not a file");
  ExpectBadInput(with(P("model.txtpb"), ""), "plugin " + P("model.txtpb") + ": cannot be loaded: invalid ELF header");
  const std::string faulty = EPSIM_PLUGINS "/libfaulty_plugin.so";
  ExpectBadInput(with(faulty, "create: fails"), faulty + ": placement: options: \"create: fails\" is no fault");
  ExpectBadInput(with(faulty, "place: fails"), faulty + ": placement: the moon is full");
  ExpectBadInput(with(faulty, "place: too large"),
                 faulty + ": placement: layer 1, slot 1: expert 16 is none of 0 to 15");
  EXPECT_EQ(Epsim(with(faulty, "")).exit_code, 0);
  std::filesystem::remove_all(folder_ / "out");
  const std::string choice = "run " + experiment_ + " --out " + P("out") + " --set replica_choice.choice=plugin ";
  ExpectBadInput(choice, "small.experiment: plugin: library: none named");
  ExpectBadInput(choice + "--set replica_choice.plugin.library=" + P("absent.so"),
                 "replica_choice.plugin.library: " + P("absent.so") + ": cannot open: No such file");
  ExpectBadInput(choice + "--set replica_choice.plugin.library=" + faulty +
                     " --set 'replica_choice.plugin.options=choose: too large'",
                 faulty + ": replica choice: layer 0, source rank 7, expert 1: slot 16 is none of 0 to 15");
  const std::string routing = "run " + experiment_ + " --out " + P("out") + " --set routing.reconstruct=RANK_PRIOR ";
  ExpectBadInput(routing + "--set routing.policy=plugin", "plugin: library: none named");
  ExpectBadInput(routing + "--set routing.plugin.library=" + P("absent.so"),
                 "routing.plugin.library: " + P("absent.so") + ": cannot open: No such file");
  ExpectBadInput(
      routing + "--set routing.plugin.library=" + faulty + " --set 'routing.plugin.options=route: too large'",
      faulty + ": routing: step 0, layer 0, token 3 of its rank: expert 16 is none of 0 to 15");
}

TEST_F(CommandLine, AWrongFlagIsExitCode2) {
  EXPECT_EQ(Epsim("run --nonsense").exit_code, 2);
  EXPECT_EQ(Epsim("").exit_code, 2);
  EXPECT_EQ(Epsim("--help").exit_code, 0);
  EXPECT_EQ(Epsim("--version").exit_code, 0);
}

TEST_F(CommandLine, ADamagedTraceInTheMiddleOfARunLeavesNoFiles) {
  std::string bytes = ReadFile(P("small.eptrace"));
  bytes[bytes.size() / 2] ^= 1;
  WriteFile("small.eptrace", bytes);
  ExpectBadInput("run " + experiment_ + " --out " + P("out"), "small.eptrace");
}

// Interrupted while it replays (the trace is long enough for several seconds), the program ends within a second, says
// so, and leaves nothing.
TEST_F(CommandLine, CtrlCEndsARunWithinASecond) {
  WriteTrace("small.eptrace", 4000, 400);
  const std::string script = "timeout --preserve-status -s INT 0.3 " + std::string(EPSIM_BINARY) + " run " +
                             experiment_ + " --threads 1 --set workload.continuous.running_requests_per_rank=1 --out " +
                             P("out") + " 2>" + P("stderr");
  const auto begin = std::chrono::steady_clock::now();
  const int status = std::system(script.c_str());
  const auto took = std::chrono::steady_clock::now() - begin;
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 1);
  EXPECT_LT(took, std::chrono::milliseconds(1300));
  EXPECT_THAT(ReadFile(P("stderr")), HasSubstr("interrupted"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out"));
}

}  // namespace
}  // namespace epsim
