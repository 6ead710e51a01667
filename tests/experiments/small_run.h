// A small world for tests of whole runs: a model of two MoE layers, a trace of its routing, an experiment on it, all in
// a temporary folder.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "experiments/run.h"
#include "experiments/setup.h"
#include "gtest/gtest.h"

namespace epsim {

class SmallRun : public testing::Test {
 protected:
  static constexpr int kLayers = 2, kExperts = 16, kTopK = 4;

  void SetUp() override;
  void TearDown() override;

  // Writes a file into the folder and returns its path.
  std::string WriteFile(const std::string& name, const std::string& text);
  std::string ReadFile(const std::string& path);
  // Writes a trace of `requests` decode requests of `tokens` tokens; expert 0 is `skew` times as likely as the last.
  std::string WriteTrace(const std::string& name, int requests, int tokens, double skew = 4);

  // Resolves and runs the experiment with overrides.
  absl::StatusOr<RunReport> Run(std::vector<std::string> set = {}, RunOptions options = {});

  std::filesystem::path folder_;
  std::string experiment_;  // Path.
};

}  // namespace epsim
