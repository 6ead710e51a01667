#include "engine/text_proto.h"

#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/text_proto_test.pb.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Outing;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

std::string ParseError(std::string_view text) {
  Outing outing;
  const absl::Status status = ParseTextProto(text, "outing.txtpb", &outing);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
  EXPECT_EQ(outing.ByteSizeLong(), 0) << "an error left something behind: " << text;
  EXPECT_THAT(Message(status), Not(HasSubstr("\n")));
  return Message(status);
}

TEST(ParseTextProtoTest, ReadsEveryKindOfField) {
  Outing outing;
  ASSERT_TRUE(ParseTextProto("name: \"a\" ranks: 8 port { bandwidth: \"450 GB/s\" latency: \"1.8 us\" }\n"
                             "sizes: [1, 2] sizes: 3 mode: DECODE placement { eplb {} }  # Comment.\n",
                             "outing.txtpb", &outing)
                  .ok());
  EXPECT_EQ(outing.name(), "a");
  EXPECT_EQ(outing.ranks(), 8);
  EXPECT_EQ(outing.port().latency(), "1.8 us");
  EXPECT_THAT(outing.sizes(), ElementsAre(1, 2, 3));
  EXPECT_TRUE(outing.placement().has_eplb());
}

TEST(ParseTextProtoTest, MergesIntoWhatIsThere) {
  Outing outing;
  outing.set_ranks(8);
  outing.set_name("before");
  ASSERT_TRUE(ParseTextProto("name: \"after\"", "f", &outing).ok());
  EXPECT_EQ(outing.ranks(), 8);
  EXPECT_EQ(outing.name(), "after");
}

TEST(ParseTextProtoTest, UnknownFieldIsNamedWithItsPlace) {
  const std::string error = ParseError("ranks: 8\nport {\n  bandwith: \"450 GB/s\"\n}\n");
  EXPECT_THAT(error, HasSubstr("outing.txtpb:3:"));
  EXPECT_THAT(error, HasSubstr("bandwith"));
}

TEST(ParseTextProtoTest, SyntaxErrorHasItsPlace) {
  EXPECT_THAT(ParseError("ranks: 8\nname: x\n"), HasSubstr("outing.txtpb:2:7: "));
  EXPECT_THAT(ParseError("ranks: -1"), HasSubstr("outing.txtpb:1:"));
  EXPECT_THAT(ParseError("ranks: 4294967296"), HasSubstr("4294967296"));
  EXPECT_THAT(ParseError("port {"), HasSubstr("outing.txtpb:1:"));
  EXPECT_THAT(ParseError("mode: DECODING"), HasSubstr("DECODING"));
}

TEST(ParseTextProtoTest, FieldSetTwiceIsAnError) {
  EXPECT_THAT(ParseError("ranks: 8\nranks: 16\n"), HasSubstr("outing.txtpb:2:"));
  EXPECT_THAT(ParseError("placement { eplb {} contiguous {} }"), HasSubstr("policy"));
}

TEST(ParseTextProtoTest, MissingUnitIsNamedWithItsPlace) {
  const std::string error = ParseError("ranks: 8\nport {\n  bandwidth: \"450\"\n}\n");
  EXPECT_THAT(error, HasSubstr("outing.txtpb:3:3: bandwidth: "));
  EXPECT_THAT(error, HasSubstr("\"450\" has no unit; expected a bandwidth such as \"450 GB/s\""));
}

TEST(ParseTextProtoTest, UnitsAreCheckedInListsAndListedMessages) {
  EXPECT_THAT(ParseError("waits: \"1 us\"\nwaits: \"2 GB\"\n"), HasSubstr("outing.txtpb:2:1: waits: \"2 GB\""));
  EXPECT_THAT(ParseError("spare_ports { latency: \"1 us\" }\nspare_ports { latency: \"7\" }\n"),
              HasSubstr("outing.txtpb:2:15: latency: \"7\" has no unit"));
  EXPECT_THAT(ParseError("memory: \"80 GB/s\""), HasSubstr("outing.txtpb:1:1: memory: "));
}

TEST(LoadTextProtoTest, NamesTheFile) {
  Outing outing;
  const std::string missing = ::testing::TempDir() + "/no_such.txtpb";
  const absl::Status status = LoadTextProto(missing, &outing);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Message(status), missing + ": cannot open: No such file or directory");
  EXPECT_EQ(Message(LoadTextProto(::testing::TempDir(), &outing)),
            ::testing::TempDir() + ": cannot read: Is a directory");
}

TEST(LoadTextProtoTest, EmptyFileIsAnEmptyMessage) {
  const std::string path = ::testing::TempDir() + "/empty" + std::to_string(getpid()) + ".txtpb";
  std::ofstream(path).close();
  Outing outing;
  EXPECT_TRUE(LoadTextProto(path, &outing).ok());
  std::ofstream(path) << "ranks: 3\nrank: 4\n";
  EXPECT_THAT(Message(LoadTextProto(path, &outing)), HasSubstr(path + ":2:"));
  std::remove(path.c_str());
}

TEST(PrintTextProtoTest, RoundTripsInSchemaOrder) {
  Outing outing;
  ASSERT_TRUE(ParseTextProto("ranks: 8 name: \"Zürich \\\"x\\\"\" port { latency: \"1 us\" }", "f", &outing).ok());
  EXPECT_EQ(PrintTextProto(outing), "name: \"Zürich \\\"x\\\"\"\nranks: 8\nport {\n  latency: \"1 us\"\n}\n");
  Outing again;
  ASSERT_TRUE(ParseTextProto(PrintTextProto(outing), "f", &again).ok());
  EXPECT_EQ(again.SerializeAsString(), outing.SerializeAsString());
}

class SetFieldTest : public ::testing::Test {
 protected:
  SetFieldTest() {
    EXPECT_TRUE(ParseTextProto("name: \"n\" ranks: 8 port { bandwidth: \"1 GB/s\" latency: \"1 us\" } sizes: [1, 2]\n"
                               "placement { eplb { interval: 5 } } spare_ports { latency: \"2 us\" }",
                               "f", &outing_)
                    .ok());
  }
  void Set(std::string_view assignment) {
    const absl::Status status = SetField(assignment, &outing_);
    EXPECT_TRUE(status.ok()) << status;
  }
  std::string Error(std::string_view assignment) {
    const std::string before = outing_.SerializeAsString();
    const absl::Status status = SetField(assignment, &outing_);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << assignment;
    EXPECT_EQ(outing_.SerializeAsString(), before) << "an error changed the message: " << assignment;
    EXPECT_THAT(Message(status), HasSubstr("--set " + std::string(assignment) + ": "));
    return Message(status);
  }
  Outing outing_;
};

TEST_F(SetFieldTest, ReplacesScalarsAndKeepsTheirNeighbours) {
  Set("ranks=16");
  Set("mode=DECODE");
  Set("port.bandwidth=450 GB/s");
  EXPECT_EQ(outing_.ranks(), 16);
  EXPECT_EQ(outing_.mode(), testing::DECODE);
  EXPECT_EQ(outing_.port().bandwidth(), "450 GB/s");
  EXPECT_EQ(outing_.port().latency(), "1 us");
}

TEST_F(SetFieldTest, TextMayLeaveOutItsQuotes) {
  Set("name=two words = \"three\" \\n");
  EXPECT_EQ(outing_.name(), "two words = \"three\" \\n");
  Set("name=\"quoted \\\"x\\\"\"");
  EXPECT_EQ(outing_.name(), "quoted \"x\"");
  Set("name=");
  EXPECT_EQ(outing_.name(), "");
}

TEST_F(SetFieldTest, ChoosesTheAlternativeOfAOneofWithItsDefaults) {
  Set("placement.policy=contiguous");
  EXPECT_TRUE(outing_.placement().has_contiguous());
  Set("placement.eplb.interval=7");
  EXPECT_EQ(outing_.placement().eplb().interval(), 7);
  Set("placement.policy=eplb");
  EXPECT_TRUE(outing_.placement().has_eplb());
  EXPECT_EQ(outing_.placement().eplb().interval(), 0);
  Set("placement.external=libmine.so");
  EXPECT_EQ(outing_.placement().external(), "libmine.so");
}

TEST_F(SetFieldTest, ReplacesLists) {
  Set("sizes=[3, 4, 5]");
  EXPECT_THAT(outing_.sizes(), ElementsAre(3, 4, 5));
  Set("sizes=6");
  EXPECT_THAT(outing_.sizes(), ElementsAre(6));
  Set("placements=[{ eplb { interval: 1 } }, { eplb { interval: 2 } }]");
  ASSERT_EQ(outing_.placements_size(), 2);
  EXPECT_EQ(outing_.placements(1).eplb().interval(), 2);
}

TEST_F(SetFieldTest, MergesMessages) {
  Set("port=latency: \"3 us\"");
  EXPECT_EQ(outing_.port().latency(), "3 us");
  EXPECT_EQ(outing_.port().bandwidth(), "1 GB/s");
  Set("port={ latency: \"4 us\" }");
  EXPECT_EQ(outing_.port().latency(), "4 us");
}

TEST_F(SetFieldTest, UnknownNamesListWhatThereIs) {
  EXPECT_THAT(Error("port.speed=1"), HasSubstr("no field \"speed\" in \"port\"; it has bandwidth, latency"));
  EXPECT_THAT(Error("rank=1"), HasSubstr("no field \"rank\" in Outing; it has name, ranks, port"));
  EXPECT_THAT(Error("placement.policy=epbl"), HasSubstr("no policy \"epbl\"; there are contiguous, eplb, external"));
  EXPECT_THAT(Error("=1"), HasSubstr("no field \"\""));
}

TEST_F(SetFieldTest, RejectsWhatIsNoAssignment) {
  EXPECT_THAT(Error("ranks"), HasSubstr("expected path.to.field=value"));
  EXPECT_THAT(Error("ranks.x=1"), HasSubstr("\"ranks\" has no fields"));
  EXPECT_THAT(Error("ranks=many"), HasSubstr("many"));
  EXPECT_THAT(Error("ranks="), HasSubstr("\"\" is not a value of ranks"));
  EXPECT_THAT(Error("placement.policy=external"), HasSubstr("\"external\" needs a value of its own"));
  EXPECT_THAT(Error("spare_ports.latency=1 us"), HasSubstr("\"spare_ports\" is a list"));
  EXPECT_THAT(Error("placements.policy=eplb"), HasSubstr("\"placements\" is a list"));
}

TEST_F(SetFieldTest, AValueCannotSetASecondField) {
  EXPECT_THAT(Error("ranks=1 mode: DECODE"), HasSubstr("\"1 mode: DECODE\" is not a value of ranks"));
  Set("name=\"a\" ranks: 3");  // Not quoted text, so text as it stands.
  EXPECT_EQ(outing_.name(), "\"a\" ranks: 3");
  EXPECT_EQ(outing_.ranks(), 8);
}

TEST_F(SetFieldTest, ChecksUnits) {
  EXPECT_THAT(Error("port.latency=1.8"), HasSubstr("latency: \"1.8\" has no unit"));
  EXPECT_THAT(Error("waits=[\"1 us\", \"1 B\"]"), HasSubstr("waits: \"1 B\""));
}

}  // namespace
}  // namespace epsim
