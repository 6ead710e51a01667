// Tables as files; and what people may do to them.
#include "models/calibration/calibration_table.h"

#include <filesystem>
#include <fstream>

#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/models/calibration/stated_calibration.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kHead[] = R"(# Comment.
hardware { gpu: "A" driver: "1" memory_bytes: 1073741824 sms: 2 cuda: "13.0" cublas: "13.1" }
date: "2026-11-29"
epsim_version: "0.1.0"
)";
constexpr char kOne[] =
    "measurement { work { gemm { m: 1 n: 2 k: 3 values: BF16 } } time { median_us: 5 lower_quartile_us: 4 "
    "upper_quartile_us: 6 repeats: 20 } }\n";

std::string Error(const std::string& text) {
  return std::string(ParseCalibrationTable(text, "t.txtpb").status().message());
}
std::string With(const std::string& from, const std::string& to) { return absl::StrReplaceAll(kOne, {{from, to}}); }

class CalibrationFolder : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "epsim_test_XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void Write(const std::string& name, const std::string& text) { std::ofstream(folder_ + "/" + name) << text; }
  std::string folder_;
};

TEST(CalibrationTable, WhatIsWrittenIsRead) {
  const Calibration calibration = StatedCalibration({*FindModel("gpt-oss-20b")});
  CalibrationTable table;
  *table.mutable_hardware() = calibration.hardware;
  table.set_date("2026-11-29");
  for (const Measurement& m : calibration.measurements) *table.add_measurement() = m;
  const std::string text = PrintCalibrationTable(table);
  const auto read = ParseCalibrationTable(text, "t.txtpb");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->SerializeAsString(), table.SerializeAsString());
  EXPECT_EQ(PrintCalibrationTable(*read), text);
  // A comment, hardware, date, and a line each.
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3 + table.measurement_size());
  EXPECT_THAT(text, HasSubstr("\nmeasurement { work { gemm { m: 1 n: "));
}

TEST(CalibrationTable, ProblemsNameFileLineAndValue) {
  EXPECT_TRUE(ParseCalibrationTable(std::string(kHead) + kOne, "t.txtpb").ok());
  EXPECT_THAT(Error(std::string(kHead) + kOne + kOne), StartsWith("t.txtpb:6: the same work as in line 5: "));
  EXPECT_THAT(Error(std::string(kHead) + kOne + With("m: 1", "m: 2") + With("m: 1", "m: 2 banana: 1")),
              StartsWith("t.txtpb:7:"));
  for (const char* time : {"0", "-5", "nan", "inf", "1e300"}) {
    EXPECT_THAT(Error(std::string(kHead) + With("median_us: 5", std::string("median_us: ") + time)),
                StartsWith("t.txtpb:5: median_us: "))
        << time;
  }
  EXPECT_THAT(Error(std::string(kHead) + With("median_us: 5", "median_us: 7")), HasSubstr("not between the quartiles"));
  EXPECT_THAT(Error(std::string(kHead) + With("gemm { m: 1 n: 2 k: 3 values: BF16 }", "")),
              StartsWith("t.txtpb:5: no work"));
  EXPECT_THAT(Error(std::string(kHead) + With("gemm { m: 1 n: 2 k: 3 values: BF16 }", "expert_mlp { hidden: 2 }")),
              StartsWith("t.txtpb:5: tokens_per_slot: of 0 slots"));
  EXPECT_THAT(Error(std::string(kHead) + With("gemm { m: 1 n: 2 k: 3 values: BF16 }",
                                              "expert_mlp { hidden: 2 inter: 3 weights: BF16 activations: BF16 "
                                              "tokens_per_slot: 4294967295 }")),
              StartsWith("t.txtpb:5: tokens_per_slot: 4294967295"));
  EXPECT_THAT(Error(std::string(kHead) + With("n: 2", "n: 0")), StartsWith("t.txtpb:5: n: 0"));
  EXPECT_THAT(Error(std::string(kHead) + With("n: 2", "n: 4294967295")), StartsWith("t.txtpb:5: n: 4294967295"));
  EXPECT_THAT(Error(std::string(kHead) + With("values: BF16", "")), StartsWith("t.txtpb:5: values: not given"));
  EXPECT_THAT(Error(std::string(kHead) + With("values: BF16", "values: 77")),
              StartsWith("t.txtpb:5: values: there is no"));
  EXPECT_THAT(Error(kOne), HasSubstr("hardware.gpu"));
  EXPECT_THAT(Error("measurement {"), StartsWith("t.txtpb:1:"));
  EXPECT_THAT(Error(std::string("\0\xff\xfe", 3)), StartsWith("t.txtpb:1:"));
}

TEST_F(CalibrationFolder, TablesOfOneFolderAreOfOneGpu) {
  Write("a.txtpb", std::string(kHead) + kOne);
  Write("b.txtpb",
        absl::StrReplaceAll(std::string(kHead) + With("m: 1", "m: 2"), {{"driver: \"1\"", "driver: \"2\""}}));
  const std::string error(ReadCalibrationFolder(folder_).status().message());
  EXPECT_THAT(error, HasSubstr("b.txtpb: measured on A (2 SMs, 1 GiB, driver 2"));
  EXPECT_THAT(error, HasSubstr("a.txtpb on A (2 SMs, 1 GiB, driver 1"));
  Write("b.txtpb", std::string(kHead) + With("m: 1", "m: 2"));
  const auto both = ReadCalibrationFolder(folder_);
  ASSERT_TRUE(both.ok()) << both.status();
  EXPECT_EQ(both->measurements.size(), 2u);
  EXPECT_EQ(both->date, "2026-11-29");
}

TEST_F(CalibrationFolder, ACopiedFileIsFound) {
  Write("a.txtpb", std::string(kHead) + kOne);
  Write("b.txtpb", std::string(kHead) + kOne);
  EXPECT_THAT(std::string(ReadCalibrationFolder(folder_).status().message()), HasSubstr("measure the same: gemm"));
}

TEST_F(CalibrationFolder, ClocksMayDiffer) {
  Write("a.txtpb", std::string(kHead) + kOne);
  Write("b.txtpb",
        absl::StrReplaceAll(std::string(kHead) + With("m: 1", "m: 2"), {{"sms: 2", "sms: 2 sm_clock_mhz: 9"}}));
  EXPECT_TRUE(ReadCalibrationFolder(folder_).ok());
}

TEST_F(CalibrationFolder, AnEmptyFolderIsAnError) {
  EXPECT_THAT(std::string(ReadCalibrationFolder(folder_).status().message()), HasSubstr("holds no table"));
  EXPECT_THAT(std::string(ReadCalibrationFolder(folder_ + "/none").status().message()), HasSubstr("cannot open"));
}

// What ships is sound, whatever it is.
TEST(CalibrationCatalogue, EveryTableCanBeRead) {
  for (const std::string& gpu : CalibratedGpus()) {
    EXPECT_TRUE(FindCalibration(gpu).ok()) << FindCalibration(gpu).status();
  }
}

}  // namespace
}  // namespace epsim
