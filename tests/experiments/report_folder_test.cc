#include "experiments/report_folder.h"

#include <fstream>
#include <sstream>

#include "gmock/gmock.h"
#include "tests/experiments/small_run.h"

namespace epsim {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

class ReportFolderTest : public SmallRun {
 protected:
  std::string P(const std::string& name) { return (folder_ / name).string(); }
  std::vector<std::string> Entries(const std::string& name) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(P(name))) names.push_back(entry.path().filename().string());
    return names;
  }
  // A report of two files that is left unfinished, or not.
  absl::Status Write(const std::string& path, bool commit, const std::string& text = "new") {
    ReportFolder folder(path);
    if (const absl::Status status = folder.Open(); !status.ok()) return status;
    for (const char* name : {"steps.csv", "summary.json"}) {
      const auto file = folder.Create(name);
      if (!file.ok()) return file.status();
      (*file)->Write(text);
    }
    return commit ? folder.Commit() : absl::CancelledError("left");
  }
};

TEST_F(ReportFolderTest, EveryFolderThatWasMadeGoesAway) {
  EXPECT_FALSE(Write(P("o/a/b"), false).ok());
  EXPECT_FALSE(fs::exists(P("o")));
  EXPECT_FALSE(Write(P("o/a/b/"), false).ok());
  EXPECT_FALSE(fs::exists(P("o")));
  EXPECT_FALSE(Write(P("o/x/../b"), false).ok());
  EXPECT_FALSE(fs::exists(P("o")));
}

TEST_F(ReportFolderTest, AFolderThatWasThereOrIsInUseStays) {
  fs::create_directories(P("o/a"));
  EXPECT_FALSE(Write(P("o/a/b/c"), false).ok());
  EXPECT_TRUE(fs::exists(P("o/a")));
  EXPECT_FALSE(fs::exists(P("o/a/b")));
  {
    ReportFolder folder(P("o/a/b/c"));
    ASSERT_TRUE(folder.Open().ok());
    WriteFile("o/a/b/note", "somebody else's");
  }
  EXPECT_THAT(Entries("o/a/b"), UnorderedElementsAre("note"));
}

TEST_F(ReportFolderTest, AnOlderReportIsReplacedAsAWhole) {
  ASSERT_TRUE(Write(P("o"), true, "old").ok());
  EXPECT_FALSE(Write(P("o"), false).ok());
  EXPECT_EQ(ReadFile(P("o/summary.json")), "old");
  EXPECT_EQ(ReadFile(P("o/steps.csv")), "old");
  ASSERT_TRUE(Write(P("o"), true, "new").ok());
  EXPECT_EQ(ReadFile(P("o/summary.json")), "new");
  EXPECT_EQ(ReadFile(P("o/steps.csv")), "new");
  EXPECT_THAT(Entries("o"), UnorderedElementsAre("summary.json", "steps.csv"));
}

TEST_F(ReportFolderTest, AFolderInTheWayOfAFileKeepsTheReportOut) {
  fs::create_directories(P("o/summary.json"));
  const absl::Status status = Write(P("o"), true);
  EXPECT_THAT(std::string(status.message()), HasSubstr("o/summary.json: cannot write the report: a folder lies"));
  EXPECT_THAT(Entries("o"), UnorderedElementsAre("summary.json"));
}

TEST_F(ReportFolderTest, AFileInTheWayOfTheFolderIsNamed) {
  WriteFile("o", "a file");
  for (const char* path : {"o", "o/a"}) {
    EXPECT_THAT(std::string(Write(P(path), true).message()), HasSubstr("o")) << path;
    EXPECT_THAT(std::string(Write(P(path), true).message()), HasSubstr(": cannot make the folder: ")) << path;
  }
  EXPECT_EQ(ReadFile(P("o")), "a file");
}

}  // namespace
}  // namespace epsim
