// Which files are taken for plug-ins, and what is said of those that are not.
#include "policies/plugin/plugin_library.h"

#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using testing::HasSubstr;

std::string PathOf(const std::string& name) { return std::string(EPSIM_PLUGINS) + "/lib" + name + ".so"; }

std::string ErrorOf(const std::string& path) {
  const absl::Status status = PluginLibrary::Load(path).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << path;
  return std::string(status.message());
}

TEST(PluginLibrary, SaysWhatIsWrongWithAFile) {
  EXPECT_EQ(ErrorOf("/nowhere/libnone.so"),
            "plugin /nowhere/libnone.so: cannot be loaded: cannot open shared object file: No such file or directory");
  const std::string text = testing::TempDir() + "/plugin_library_test.txt";
  std::ofstream(text) << "placement = best\nand some more, so that an ELF header would fit in it, which has 64 bytes";
  EXPECT_EQ(ErrorOf(text), "plugin " + text + ": cannot be loaded: invalid ELF header");
  std::remove(text.c_str());
  EXPECT_THAT(ErrorOf(testing::TempDir()), HasSubstr("cannot be loaded: cannot read file data: Is a directory"));
  EXPECT_EQ(ErrorOf(PathOf("unlinked_plugin")),
            "plugin " + PathOf("unlinked_plugin") + ": cannot be loaded: undefined symbol: epsim_test_nobody_has_this");
  EXPECT_EQ(ErrorOf(PathOf("no_plugin")),
            "plugin " + PathOf("no_plugin") + ": is no plug-in of epsim: undefined symbol: epsim_plugin");
}

TEST(PluginLibrary, SaysWhichVersionItIsBuiltFor) {
  EXPECT_EQ(ErrorOf(PathOf("other_abi_plugin")),
            "plugin " + PathOf("other_abi_plugin") +
                ": is built for ABI version 99, this epsim has version 1; build it "
                "again with this epsim's epsim_plugin.h");
  EXPECT_EQ(
      ErrorOf(PathOf("null_plugin")),
      "plugin " + PathOf("null_plugin") + ": epsim_plugin(1) returns null: the library does not serve ABI version 1");
}

// A name without a folder is a file of the current folder, not the system's library of that name.
TEST(PluginLibrary, IsNotSearchedFor) {
  EXPECT_THAT(ErrorOf("libm.so.6"), HasSubstr("plugin libm.so.6: cannot be loaded: cannot open shared object file"));
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(EPSIM_PLUGINS);
  EXPECT_TRUE(PluginLibrary::Load("libfaulty_plugin.so").ok());
  std::filesystem::current_path(before);
}

TEST(LoadPlugin, NeedsALibrary) {
  EXPECT_EQ(LoadPlugin(Plugin()).status(), absl::InvalidArgumentError("plugin: library: none named"));
  Plugin config;
  config.set_library(std::string("lib\0.so", 7));
  EXPECT_EQ(LoadPlugin(config).status(), absl::InvalidArgumentError("plugin: library: the name has a zero byte in it"));
}

}  // namespace
}  // namespace epsim
