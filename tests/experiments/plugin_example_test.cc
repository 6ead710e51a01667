// Can a user build a plug-in of their own, outside the tree, against an installed epsim, and run it?  In a short form
// of experiments/plugin_example.
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace epsim {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using Json = nlohmann::json;

class PluginExample : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "epsim_test_XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    ASSERT_EQ(Shell(EPSIM_CMAKE " --install " EPSIM_BUILD " --prefix " + P("epsim")), 0) << out_ << err_;
    fs::copy(EPSIM_SOURCE_DIR "/experiments/plugin_example", folder_ / "mine");
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string P(const std::string& name) { return (folder_ / name).string(); }

  // Runs a command in the folder; its exit code, and its output in out_ and err_.
  int Shell(const std::string& command) {
    const std::string whole = "cd " + folder_.string() + " && " + command + " >stdout 2>stderr </dev/null";
    const int status = std::system(whole.c_str());
    out_ = Read(P("stdout"));
    err_ = Read(P("stderr"));
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  static std::string Read(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }

  // Configures and builds the plug-in as its README says.
  void Build() {
    ASSERT_EQ(Shell(EPSIM_CMAKE " -S mine -B mine/build -G '" EPSIM_GENERATOR "' -DCMAKE_C_FLAGS=-Werror "
                                "-DCMAKE_PREFIX_PATH=" +
                    P("epsim")),
              0)
        << out_ << err_;
    ASSERT_EQ(Shell(EPSIM_CMAKE " --build mine/build"), 0) << out_ << err_;
  }
  // The installed program.
  int Epsim(const std::string& arguments) { return Shell(P("epsim/bin/epsim") + " " + arguments); }
  Json Summary(const std::string& set) {
    EXPECT_EQ(Epsim("run mine --json --trace " EPSIM_SOURCE_DIR "/experiments/quickstart/gpt-oss-20b-synthetic.eptrace "
                    "--set workload.max_steps=40 " +
                    set),
              0)
        << err_;
    return Json::parse(out_, nullptr, false);
  }

  fs::path folder_;
  std::string out_, err_;
};

// The plug-in levels what the contiguous placement leaves uneven, and is named with its bytes in the manifest.
TEST_F(PluginExample, RunsAgainstAnInstalledEpsim) {
  ASSERT_NO_FATAL_FAILURE(Build());
  const Json mine = Summary("--out report"), contiguous = Summary("--set placement.policy=contiguous");
  EXPECT_EQ(mine["trace"]["steps"], 30);
  EXPECT_EQ(contiguous["trace"]["steps"], 30);
  EXPECT_GT(mine["balancedness"]["tokens"]["mean"].get<double>(),
            contiguous["balancedness"]["tokens"]["mean"].get<double>() + 0.1);
  const std::string manifest = Read(P("report/manifest.txtpb"));
  EXPECT_THAT(manifest, HasSubstr("library: \"mine/build/libexample.so\""));
  EXPECT_THAT(manifest, HasSubstr("path: \"mine/build/libexample.so\""));

  // Routed to the best 3 of a token's 4.
  const Json routed = Summary(
      "--set routing.plugin.library=mine/build/libexample.so --set 'routing.plugin.options=keep = 3' "
      "--set routing.reconstruct=RANK_PRIOR");
  EXPECT_EQ(routed["routing"]["policy"], "plugin");
  EXPECT_DOUBLE_EQ(routed["routing"]["captured_pairs_kept"].get<double>(), 0.75);
  EXPECT_EQ(routed["routing"]["tokens_dropped"].get<double>(), 0);

  // 3 -> 1.5 + 1.5: 2 to rank 0, 1.5 to rank 1, 1.5' to rank 0, where expert 0 is not yet, 1 to rank 1.
  std::ofstream(P("load.json")) << R"({"weight": [[3, 1, 2]]})";
  ASSERT_EQ(Epsim("place --policy plugin --load load.json --slots 4 --ranks 2 "
                  "--options 'library: \"mine/build/libexample.so\"'"),
            0)
      << err_;
  EXPECT_EQ(Json::parse(out_)["phy2log"], Json::parse("[[2, 0, 0, 1]]"));
}

// A plug-in that was built against the header of another version.
TEST_F(PluginExample, IsRefusedWhereTheVersionIsAnother) {
  const std::string header = P("epsim/include/epsim/epsim_plugin.h"), line = "#define EPSIM_PLUGIN_ABI ";
  std::string text = Read(header);
  const size_t place = text.find(line);
  ASSERT_NE(place, text.npos);
  text.insert(place + line.size(), "9");
  std::ofstream(header) << text;
  ASSERT_NO_FATAL_FAILURE(Build());
  EXPECT_EQ(Epsim("check mine --trace " EPSIM_SOURCE_DIR "/experiments/quickstart/gpt-oss-20b-synthetic.eptrace"), 2);
  EXPECT_THAT(err_, HasSubstr("plugin mine/build/libexample.so: is built for ABI version 9"));
  EXPECT_EQ(std::count(err_.begin(), err_.end(), '\n'), 1) << err_;
}

}  // namespace
}  // namespace epsim
