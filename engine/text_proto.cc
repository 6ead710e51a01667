#include "engine/text_proto.h"

#include <memory>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "engine/status_macros.h"
#include "engine/unit_text.h"
#include "engine/whole_file.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/text_format.h"

namespace epsim {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::OneofDescriptor;
using google::protobuf::Reflection;
using google::protobuf::TextFormat;
using ParseInfoTree = TextFormat::ParseInfoTree;

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

// Keeps the first problem; the parser counts lines and columns from 0.
class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (!message_.empty()) return;
    line_ = line + 1;
    column_ = column + 1;
    message_ = absl::StrReplaceAll(message, {{"\n", " "}});
  }
  void AddWarning(int line, int column, const std::string& message) override { AddError(line, column, message); }

  absl::Status Status(std::string_view name) const {
    return absl::InvalidArgumentError(absl::StrCat(View(name), ":", line_, ":", column_, ": ", message_));
  }

 private:
  int line_ = 1, column_ = 1;
  std::string message_;
};

// Checks every text field that must carry a unit.  `tree` may be null.
absl::Status CheckUnits(const Message& message, const ParseInfoTree* tree, std::string_view name) {
  const Reflection* reflection = message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const int count = field->is_repeated() ? reflection->FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      const int index = field->is_repeated() ? i : -1;
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
        const Message& child = field->is_repeated() ? reflection->GetRepeatedMessage(message, field, i)
                                                    : reflection->GetMessage(message, field);
        RETURN_IF_ERROR(CheckUnits(child, tree ? tree->GetTreeForNested(field, index) : nullptr, name));
      } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING && field->options().GetExtension(unit)) {
        const std::string text = field->is_repeated() ? reflection->GetRepeatedString(message, field, i)
                                                      : reflection->GetString(message, field);
        const absl::Status status = CheckUnitText(field->options().GetExtension(unit), text);
        if (status.ok()) continue;
        std::string place(name);
        if (tree != nullptr) {
          const TextFormat::ParseLocation location = tree->GetLocation(field, index);
          place = absl::StrCat(View(name), ":", location.line + 1, ":", location.column + 1);
        }
        return absl::InvalidArgumentError(absl::StrCat(place, ": ", field->name(), ": ", status.message()));
      }
    }
  }
  return absl::OkStatus();
}

std::vector<std::string> Names(const Descriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.real_oneof_decl_count(); ++i) names.push_back(type.oneof_decl(i)->name());
  for (int i = 0; i < type.field_count(); ++i) names.push_back(type.field(i)->name());
  return names;
}

std::vector<std::string> Alternatives(const OneofDescriptor& oneof) {
  std::vector<std::string> names;
  for (int i = 0; i < oneof.field_count(); ++i) names.push_back(oneof.field(i)->name());
  return names;
}

// Whether `text` is quoted text and nothing after it.
bool IsQuoted(std::string_view text) {
  if (text.size() < 2 || text.front() != '"') return false;
  for (size_t i = 1; i < text.size(); ++i) {
    if (text[i] == '"') return i + 1 == text.size();
    if (text[i] == '\\') ++i;
  }
  return false;
}

// `value` as textproto writes a value of `field`.
absl::StatusOr<std::string> Literal(const FieldDescriptor& field, std::string_view value, std::string_view place) {
  if (field.is_repeated() && !value.empty() && value.front() == '[') return std::string(value);
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    return value.empty() || value.front() != '{' ? absl::StrCat("{ ", View(value), " }") : std::string(value);
  }
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
    return IsQuoted(value) ? std::string(value) : absl::StrCat("\"", absl::CEscape(View(value)), "\"");
  }
  // One word, or the rest of the value would set fields that the path does not name.
  if (value.empty() || value.find_first_of(" \t\r\n,:;{}[]<>\"'#") != std::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(View(place), ": \"", View(value), "\" is not a value of ", field.name()));
  }
  return std::string(value);
}

absl::Status SetFieldOf(Message* message, std::string_view assignment) {
  const size_t equals = assignment.find('=');
  const std::string place = absl::StrCat("--set ", View(assignment));
  if (equals == std::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat(place, ": expected path.to.field=value"));
  }
  const std::vector<std::string> path = absl::StrSplit(View(assignment.substr(0, equals)), '.');
  const std::string value(assignment.substr(equals + 1));

  // The assignment is rewritten as textproto around the value and parsed by the same parser as a file.
  const Descriptor* type = message->GetDescriptor();
  std::string open, close;
  const FieldDescriptor* field = nullptr;
  const OneofDescriptor* oneof = nullptr;
  Message* target = message;  // Holds the last field of the path.
  for (size_t i = 0; i < path.size(); ++i) {
    if (type == nullptr || oneof != nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(place, ": \"", path[i - 1], "\" has no fields"));
    }
    if (field != nullptr && field->is_repeated()) {
      return absl::InvalidArgumentError(absl::StrCat(place, ": \"", path[i - 1], "\" is a list; set it in the file"));
    }
    oneof = i + 1 == path.size() ? type->FindOneofByName(path[i]) : nullptr;
    if (oneof != nullptr) break;
    const FieldDescriptor* next = type->FindFieldByName(path[i]);
    if (next == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(place, ": no field \"", path[i], "\" in ",
                                                     i == 0 ? type->name() : absl::StrCat("\"", path[i - 1], "\""),
                                                     "; it has ", absl::StrJoin(Names(*type), ", ")));
    }
    if (field != nullptr) {
      open += absl::StrCat(field->name(), " { ");
      close += " }";
      target = target->GetReflection()->MutableMessage(target, field);
    }
    field = next;
    type = field->message_type();
  }
  if (oneof != nullptr) {
    const FieldDescriptor* chosen = oneof->containing_type()->FindFieldByName(value);
    if (chosen == nullptr || chosen->containing_oneof() != oneof) {
      return absl::InvalidArgumentError(absl::StrCat(place, ": no ", oneof->name(), " \"", value, "\"; there are ",
                                                     absl::StrJoin(Alternatives(*oneof), ", ")));
    }
    if (field != nullptr) target = target->GetReflection()->MutableMessage(target, field);
    target->GetReflection()->ClearOneof(target, oneof);
    if (chosen->message_type() == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(place, ": \"", value, "\" needs a value of its own"));
    }
    target->GetReflection()->MutableMessage(target, chosen);
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const std::string literal, Literal(*field, value, place));
  if (field->is_repeated()) target->GetReflection()->ClearField(target, field);
  FirstError errors;
  TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  // A oneof alternative that is already set by another name would be a parse error in one text; merging replaces it.
  if (field->containing_oneof() != nullptr) target->GetReflection()->ClearOneof(target, field->containing_oneof());
  const std::string text = absl::StrCat(open, field->name(), ": ", literal, close);
  if (!parser.MergeFromString(text, message)) {
    return absl::InvalidArgumentError(absl::StrCat(place, ": ", errors.Status("value").message()));
  }
  return CheckUnits(*message, nullptr, place);
}

}  // namespace

absl::Status ParseTextProto(std::string_view text, std::string_view name, Message* message) {
  FirstError errors;
  ParseInfoTree tree;
  TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  parser.WriteLocationsTo(&tree);
  // Parsed apart, because only Parse refuses a field that is set twice, and a failure must leave `message` as it was.
  const std::unique_ptr<Message> parsed(message->New());
  if (!parser.ParseFromString(std::string(text), parsed.get())) return errors.Status(name);
  RETURN_IF_ERROR(CheckUnits(*parsed, &tree, name));
  message->MergeFrom(*parsed);
  return absl::OkStatus();
}

absl::Status LoadTextProto(const std::string& path, Message* message) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  return ParseTextProto(text, path, message);
}

std::string PrintTextProto(const Message& message) {
  std::string text;
  TextFormat::Printer printer;
  printer.SetUseUtf8StringEscaping(true);
  printer.PrintToString(message, &text);
  return text;
}

absl::Status SetField(std::string_view assignment, Message* message) {
  const std::unique_ptr<Message> edited(message->New());
  edited->CopyFrom(*message);
  RETURN_IF_ERROR(SetFieldOf(edited.get(), assignment));
  message->CopyFrom(*edited);
  return absl::OkStatus();
}

}  // namespace epsim
