// The house: who may include whom.
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>

#include "gtest/gtest.h"

namespace {

namespace fs = std::filesystem;

const std::map<std::string, std::set<std::string>> kMayInclude = {
    {"engine", {"engine"}},
    {"traces", {"engine", "traces"}},
    {"platforms", {"engine", "platforms"}},
    {"policies", {"engine", "platforms", "policies"}},
    {"models", {"engine", "traces", "platforms", "policies", "models"}},
    {"experiments", {"engine", "traces", "platforms", "policies", "models", "experiments"}},
};

// C++ includes and schema imports.
TEST(Architecture, ArrowsPointOneWay) {
  const std::regex arrow(R"rx(^\s*(?:#include|import) "([a-z]+)/)rx");
  int arrows = 0;
  for (const auto& [room, allowed] : kMayInclude) {
    for (const auto& entry : fs::recursive_directory_iterator(fs::path(EPSIM_SOURCE_DIR) / room)) {
      const std::string extension = entry.path().extension().string();
      if (extension != ".h" && extension != ".cc" && extension != ".cu" && extension != ".proto") continue;
      std::ifstream file(entry.path());
      std::string line;
      for (int number = 1; std::getline(file, line); ++number) {
        std::smatch match;
        if (!std::regex_search(line, match, arrow) || !kMayInclude.contains(match[1])) continue;
        ++arrows;
        EXPECT_TRUE(allowed.contains(match[1])) << entry.path() << ":" << number << ": " << room << " includes "
                                                << match[1];
      }
    }
  }
  EXPECT_GT(arrows, 100) << "the sources were not found";
}

// Policies decide as a production balancer does: what they link with has no trace in it.
TEST(Architecture, PoliciesDoNotKnowTraces) {
  std::ifstream file(fs::path(EPSIM_SOURCE_DIR) / "policies" / "CMakeLists.txt");
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  ASSERT_FALSE(text.empty());
  EXPECT_EQ(text.find("epsim::traces"), std::string::npos);
  EXPECT_EQ(text.find("epsim::models"), std::string::npos);
}

// Nothing that ships is a path of somebody's machine or larger than 2 MB.
TEST(Architecture, NoLargeFiles) {
  for (const char* room : {"engine", "traces", "platforms", "policies", "models", "experiments", "tests"}) {
    for (const auto& entry : fs::recursive_directory_iterator(fs::path(EPSIM_SOURCE_DIR) / room)) {
      if (!entry.is_regular_file()) continue;
      EXPECT_LT(entry.file_size(), 2u << 20) << entry.path();
    }
  }
}

}  // namespace
