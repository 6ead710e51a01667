#include "experiments/accuracy/case_file.h"

#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;

constexpr char kCase[] =
    R"({"id": "a", "kind": "nccl", "platform": "h100-sxm", "weight": "tight", "measured": 7.5, "metric": "time_us", "gpus": 8, "note": null})";

std::string FileOf(const std::string& text) {
  const std::string path = ::testing::TempDir() + "/cases.jsonl";
  std::ofstream(path) << text;
  return path;
}

std::string Error(const std::string& text) {
  const auto cases = ReadCases(FileOf(text));
  EXPECT_EQ(cases.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(cases.status().message());
}

// kCase with `from` replaced.
std::string With(const std::string& from, const std::string& to) {
  std::string text = kCase;
  return text.replace(text.find(from), from.size(), to);
}

TEST(CaseFileTest, ReadsCasesAndSkipsEmptyLines) {
  const auto cases = ReadCases(FileOf("\n" + std::string(kCase) + "\n\n" + With("\"a\"", "\"b\"")));
  ASSERT_TRUE(cases.ok()) << cases.status();
  ASSERT_EQ(cases->size(), 2);
  const Case& first = (*cases)[0];
  EXPECT_EQ(first.id, "a");
  EXPECT_EQ(first.library, "nccl");
  EXPECT_EQ(first.metric, "time_us");
  EXPECT_EQ(first.measured, 7.5);
  EXPECT_TRUE(first.tight);
  EXPECT_THAT(first.place, HasSubstr("cases.jsonl:2"));
  EXPECT_THAT((*cases)[1].place, HasSubstr("cases.jsonl:4"));
}

TEST(CaseFileTest, ErrorsNameLineFieldAndValue) {
  EXPECT_THAT(Error("{"), HasSubstr("cases.jsonl:1: not JSON"));
  EXPECT_THAT(Error("[1]"), HasSubstr("cases.jsonl:1: not a JSON object"));
  EXPECT_THAT(Error(With("\"id\": \"a\"", "\"id\": 3")), HasSubstr("cases.jsonl:1: id: 3 is not a string"));
  EXPECT_THAT(Error(With("\"metric\"", "\"metrics\"")), HasSubstr("cases.jsonl:1: metric: missing"));
  EXPECT_THAT(Error(With("tight", "firm")), HasSubstr("weight: \"firm\" is neither tight nor loose"));
  EXPECT_THAT(Error(With("7.5", "0")), HasSubstr("measured: 0 is not positive"));
  EXPECT_THAT(Error(With("7.5", "-1e300")), HasSubstr("measured: -1e+300 is not positive"));
  EXPECT_THAT(Error(With("7.5", "\"7\"")), HasSubstr("measured: \"7\" is not a number"));
  EXPECT_THAT(Error(std::string(kCase) + "\n" + kCase), HasSubstr("cases.jsonl:2: id: \"a\" is there already, at "));
  EXPECT_THAT(Error("\n\n"), HasSubstr("cases.jsonl: no cases"));
  EXPECT_EQ(ReadCases("/no/such/file").status().code(), absl::StatusCode::kNotFound);
}

TEST(CaseFileTest, FieldsHaveRanges) {
  const auto cases = ReadCases(FileOf(kCase));
  ASSERT_TRUE(cases.ok());
  const Case& measured = (*cases)[0];
  EXPECT_EQ(*IntegerField(measured, "gpus", 1, 8), 8);
  EXPECT_THAT(std::string(IntegerField(measured, "gpus", 1, 7).status().message()),
              HasSubstr("cases.jsonl:1: gpus: 8 is not a whole number from 1 to 7"));
  EXPECT_THAT(std::string(IntegerField(measured, "measured", 1, 8).status().message()),
              HasSubstr("7.5 is not a whole"));
  EXPECT_THAT(std::string(IntegerField(measured, "note", 1, 8).status().message()), HasSubstr("note: missing"));
  EXPECT_FALSE(HasField(measured, "note"));
  EXPECT_FALSE(HasField(measured, "absent"));
}

}  // namespace
}  // namespace epsim
