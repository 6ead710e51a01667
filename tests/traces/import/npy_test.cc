#include "traces/import/npy.h"

#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/traces/format/trace_samples.h"
#include "tests/traces/import/npy_samples.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class NpyTest : public ::testing::Test {
 protected:
  absl::StatusOr<NpyArray> Open(const std::string& bytes) {
    WriteFile(folder_ / "a.npy", bytes);
    return NpyArray::Open(folder_ / "a.npy");
  }
  std::string Error(const std::string& bytes) {
    const absl::Status status = Open(bytes).status();
    if (!status.ok()) {
      EXPECT_THAT(std::string(status.message()), StartsWith((folder_ / "a.npy") + ": "));
    }
    EXPECT_EQ(status.message().find('\n'), absl::string_view::npos);
    return std::string(status.message());
  }
  std::vector<int32_t> Values(const NpyArray& array, int64_t first, size_t count) {
    std::vector<int32_t> values(count);
    array.Read(first, absl::MakeSpan(values));
    return values;
  }
  const ScratchFolder folder_;
};

TEST_F(NpyTest, ReadsEveryFormatAndType) {
  for (const int major : {1, 2, 3}) {
    struct {
      const char* descr;
      int bytes;
      std::vector<int64_t> values;
    } const cases[] = {{"|u1", 1, {0, 255, 1, 2, 3, 4}},
                       {"<u2", 2, {0, 65535, 1, 2, 3, 4}},
                       {"<i2", 2, {-1, 32767, 1, 2, 3, -32768}},
                       {"<i4", 4, {-1, 2147483647, 1, 2, 3, 4}},
                       {"<i8", 8, {-1, 2147483647, 1, 2, 3, 4}}};
    for (const auto& c : cases) {
      const auto array = Open(Npy(major, Dict(c.descr, "(3, 2)"), Numbers(c.values, c.bytes)));
      ASSERT_TRUE(array.ok()) << array.status();
      EXPECT_THAT(array->shape(), ElementsAre(3, 2));
      EXPECT_EQ(array->ShapeText(), "[3, 2]");
      EXPECT_EQ(Values(*array, 0, 6), std::vector<int32_t>(c.values.begin(), c.values.end()));
      EXPECT_THAT(Values(*array, 2, 3), ElementsAre(1, 2, 3));
    }
  }
}

TEST_F(NpyTest, NumbersBeyond32BitsBecomeTheNearest) {
  const auto array = Open(Npy(1, Dict("<i8", "(2,)"), Numbers({int64_t{1} << 32, -(int64_t{1} << 40)}, 8)));
  ASSERT_TRUE(array.ok()) << array.status();
  EXPECT_THAT(Values(*array, 0, 2),
              ElementsAre(std::numeric_limits<int32_t>::max(), std::numeric_limits<int32_t>::min()));
}

TEST_F(NpyTest, ReadsHeadersThatOthersWrite) {
  EXPECT_TRUE(Open(Npy(1, "{\"shape\":(2,),\"fortran_order\":False,\"descr\":\"|u1\"}", "ab")).ok());
  EXPECT_TRUE(Open(Npy(1, Dict("|u1", "()"), "a")).ok());
  EXPECT_TRUE(Open(Npy(1, Dict("|u1", "(0, 3)"), "")).ok());
}

TEST_F(NpyTest, NamesWhatItCannotRead) {
  EXPECT_THAT(Error(""), HasSubstr("is not a .npy file"));
  EXPECT_THAT(Error("\x93NUMPY"), HasSubstr("is not a .npy file"));
  EXPECT_THAT(Error("PK\x03\x04 an archive of arrays"), HasSubstr("is not a .npy file"));
  EXPECT_THAT(Error(Npy(4, Dict("|u1", "(2,)"), "ab")), HasSubstr("is of .npy format 4.0, not 1.0, 2.0 or 3.0"));
  EXPECT_THAT(Error(Npy(1, Dict(">i2", "(1,)"), "ab")), HasSubstr("numbers of type '>i2', not |u1"));
  EXPECT_THAT(Error(Npy(1, Dict("<f4", "(1,)"), "abcd")), HasSubstr("numbers of type '<f4'"));
  EXPECT_THAT(Error(Npy(1, Dict("|O", "(1,)"), "abcd")), HasSubstr("numbers of type '|O'"));
  EXPECT_THAT(Error(Npy(1, "{'descr': [('a', '<i2')], 'fortran_order': False, 'shape': (1,), }", "ab")),
              HasSubstr("is an array of records"));
  EXPECT_THAT(Error(Npy(1, "{'descr': '|u1', 'fortran_order': True, 'shape': (2,), }", "ab")),
              HasSubstr("is in Fortran order"));
  EXPECT_THAT(Error(Npy(1, "{'descr': '|u1', 'fortran_order': False, }", "ab")), HasSubstr("the header has no shape"));
  EXPECT_THAT(Error(Npy(1, "{'descr': '|u1', 'descr': '|u1', 'shape': (2,), }", "ab")),
              HasSubstr("unexpected key 'descr'"));
  EXPECT_THAT(Error(Npy(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (2,), } import os", "ab")),
              HasSubstr("where the end is expected"));
  EXPECT_THAT(Error(Npy(1, Dict("|u1", "(-2,)"), "ab")), HasSubstr("\"-2,), }"));
}

TEST_F(NpyTest, TheDataMustBeWhatTheShapeSays) {
  EXPECT_THAT(Error(Npy(1, Dict("<i2", "(2, 2)"), "1234567")),
              HasSubstr("has 7 bytes of data, which is not [2, 2] of"));
  EXPECT_THAT(Error(Npy(1, Dict("|u1", "(2,)"), "abc")), HasSubstr("has 3 bytes of data"));
  EXPECT_THAT(Error(Npy(1, Dict("|u1", "(0, 3)"), "a")), HasSubstr("has 1 bytes of data"));
  EXPECT_THAT(Error(Npy(1, Dict("|u1", "(4294967296, 4294967296)"), "")), HasSubstr("has 0 bytes of data"));
  EXPECT_THAT(Error(Npy(1, Dict("|u1", "(99999999999999999999,)"), "")), HasSubstr("a number within 64 bits"));
}

// Whatever the file ends in: an error or the array, never more than the file has.
TEST_F(NpyTest, CutAtEveryByte) {
  const std::string bytes = Npy(2, Dict("<i2", "(3, 2)"), Numbers({1, 2, 3, 4, 5, 6}, 2));
  for (size_t size = 0; size < bytes.size(); ++size) EXPECT_NE(Error(bytes.substr(0, size)), "") << size;
  EXPECT_EQ(Error(bytes), "");
}

}  // namespace
}  // namespace epsim
