#include "engine/whole_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

class WholeFileTest : public ::testing::Test {
 protected:
  WholeFileTest() {
    folder_ = ::testing::TempDir() + "/whole_file_test." + std::to_string(getpid());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~WholeFileTest() override { fs::remove_all(folder_); }

  std::vector<std::string> Entries() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) names.push_back(entry.path().filename());
    return names;
  }
  std::string Text(const std::string& name) const {
    std::ostringstream text;
    text << std::ifstream(folder_ + "/" + name).rdbuf();
    return text.str();
  }
  std::string folder_;
};

TEST_F(WholeFileTest, AppearsOnlyAtCommit) {
  auto file = WholeFile::Create(folder_ + "/a");
  ASSERT_TRUE(file.ok());
  EXPECT_EQ((*file)->path(), folder_ + "/a");
  (*file)->Write("one ");
  (*file)->Write("two");
  EXPECT_FALSE(fs::exists(folder_ + "/a"));
  ASSERT_TRUE((*file)->Commit().ok());
  EXPECT_THAT(Entries(), ElementsAre("a"));
  EXPECT_EQ(Text("a"), "one two");
}

TEST_F(WholeFileTest, LeavesNothingWithoutCommit) {
  {
    auto file = WholeFile::Create(folder_ + "/a");
    ASSERT_TRUE(file.ok());
    (*file)->Write("half");
  }
  EXPECT_THAT(Entries(), IsEmpty());
}

TEST_F(WholeFileTest, CommitReplacesAndAnAbandonedFileDoesNot) {
  std::ofstream(folder_ + "/a") << "old";
  {
    auto file = WholeFile::Create(folder_ + "/a");
    ASSERT_TRUE(file.ok());
    (*file)->Write("abandoned");
  }
  EXPECT_EQ(Text("a"), "old");
  auto file = WholeFile::Create(folder_ + "/a");
  ASSERT_TRUE(file.ok());
  (*file)->Write("new");
  ASSERT_TRUE((*file)->Commit().ok());
  EXPECT_EQ(Text("a"), "new");
  EXPECT_THAT(Entries(), ElementsAre("a"));
}

TEST_F(WholeFileTest, ATemporaryFileOfAKilledProcessIsNoObstacle) {
  std::ofstream(folder_ + "/a.tmp" + std::to_string(getpid()) + "-0") << "left behind";
  auto file = WholeFile::Create(folder_ + "/a");
  ASSERT_TRUE(file.ok()) << file.status();
  (*file)->Write("mine");
  ASSERT_TRUE((*file)->Commit().ok());
  EXPECT_EQ(Text("a"), "mine");
}

TEST_F(WholeFileTest, TwoWritersOfOneNameDoNotMix) {
  auto first = WholeFile::Create(folder_ + "/a"), second = WholeFile::Create(folder_ + "/a");
  ASSERT_TRUE(first.ok() && second.ok());
  (*first)->Write("first");
  (*second)->Write("second");
  ASSERT_TRUE((*second)->Commit().ok());
  ASSERT_TRUE((*first)->Commit().ok());
  EXPECT_EQ(Text("a"), "first");
}

std::vector<std::unique_ptr<WholeFile>> NewFiles(const std::string& folder, std::initializer_list<const char*> names) {
  std::vector<std::unique_ptr<WholeFile>> files;
  for (const char* name : names) {
    auto file = WholeFile::Create(folder + "/" + name);
    EXPECT_TRUE(file.ok()) << file.status();
    (*file)->Write(std::string("new ") + name);
    files.push_back(*std::move(file));
  }
  return files;
}

TEST_F(WholeFileTest, FilesAreCommittedTogether) {
  std::ofstream(folder_ + "/b") << "old b";
  ASSERT_TRUE(WholeFile::CommitAll(NewFiles(folder_, {"a", "b"})).ok());
  EXPECT_THAT(Entries(), UnorderedElementsAre("a", "b"));
  EXPECT_EQ(Text("a"), "new a");
  EXPECT_EQ(Text("b"), "new b");
}

// One of the names is a folder's, whichever comes first: the old files stay, the new ones leave no trace.
TEST_F(WholeFileTest, OneFileThatCannotBeCommittedKeepsAllOut) {
  std::ofstream(folder_ + "/a") << "old a";
  std::ofstream(folder_ + "/d") << "old d";
  fs::create_directory(folder_ + "/c");
  for (const auto& names : {std::initializer_list<const char*>{"a", "b", "c", "d"}, {"c", "a", "b", "d"}}) {
    const absl::Status status = WholeFile::CommitAll(NewFiles(folder_, names));
    EXPECT_EQ(std::string(status.message()), folder_ + "/c: cannot rename into: Is a directory");
    EXPECT_THAT(Entries(), UnorderedElementsAre("a", "c", "d"));
    EXPECT_EQ(Text("a"), "old a");
    EXPECT_EQ(Text("d"), "old d");
  }
}

TEST_F(WholeFileTest, ErrorsNameThePath) {
  const std::string lost = folder_ + "/no_such_folder/a";
  const auto file = WholeFile::Create(lost);
  EXPECT_EQ(file.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(std::string(file.status().message()), lost + ": cannot create: No such file or directory");

  fs::create_directory(folder_ + "/taken");
  auto taken = WholeFile::Create(folder_ + "/taken");
  ASSERT_TRUE(taken.ok());
  EXPECT_THAT(std::string((*taken)->Commit().message()), HasSubstr("/taken: cannot rename into: "));
  EXPECT_THAT(Entries(), ElementsAre("taken"));
}

TEST_F(WholeFileTest, UnwritableFolderIsAnError) {
  if (geteuid() == 0) GTEST_SKIP() << "root may write everywhere";
  fs::permissions(folder_, fs::perms::owner_read | fs::perms::owner_exec);
  EXPECT_THAT(std::string(WholeFile::Create(folder_ + "/a").status().message()), HasSubstr("Permission denied"));
  fs::permissions(folder_, fs::perms::owner_all);
}

// /dev/full accepts a file and refuses its bytes.
TEST_F(WholeFileTest, AFullDiskIsReportedByCommit) {
  std::error_code error;
  const std::string temporary = folder_ + "/a.tmp" + std::to_string(getpid()) + "-0";
  auto file = WholeFile::Create(folder_ + "/a");
  ASSERT_TRUE(file.ok());
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  // The open descriptor of the temporary file is made to lead to /dev/full.
  int replaced = 0;
  for (const auto& entry : fs::directory_iterator("/proc/self/fd", error)) {
    if (fs::read_symlink(entry.path(), error) != temporary) continue;
    const int full = open("/dev/full", O_WRONLY);
    dup2(full, std::stoi(entry.path().filename()));
    close(full);
    ++replaced;
  }
  if (replaced != 1) GTEST_SKIP() << "no /proc/self/fd";
  (*file)->Write(std::string(1 << 20, 'x'));
  EXPECT_THAT(std::string((*file)->Commit().message()), HasSubstr("/a: cannot write: No space left on device"));
  EXPECT_THAT(Entries(), IsEmpty());
}

}  // namespace
}  // namespace epsim
