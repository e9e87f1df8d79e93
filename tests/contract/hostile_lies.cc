#include "tests/contract/hostile_lies.h"

#include <algorithm>
#include <limits>

namespace dims::test {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

namespace {

template <typename Map, typename Key>
const typename Map::mapped_type& at_or_empty(const Map& map, const Key& key) {
  static const typename Map::mapped_type empty;
  const auto found = map.find(key);
  return found == map.end() ? empty : found->second;
}

bool is_text(const FieldDescriptor& field) {
  return field.cpp_type() == FieldDescriptor::CPPTYPE_STRING;
}
bool is_message(const FieldDescriptor& field) {
  return field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
}

std::vector<std::string> ways_of(const FieldDescriptor& field) {
  std::vector<std::string> out;
  if (is_message(field))
    out = {"clear", "other"};
  else if (field.type() == FieldDescriptor::TYPE_BYTES)
    out = {"clear", "flip first", "flip middle", "flip last", "cut", "other", "other kind"};
  else if (is_text(field))
    out = {"clear", "other"};
  else if (field.cpp_type() == FieldDescriptor::CPPTYPE_BOOL ||
           field.cpp_type() == FieldDescriptor::CPPTYPE_ENUM)
    out = {"change"};
  else
    out = {"zero", "one more", "one less", "largest"};
  if (field.is_repeated()) {
    for (const char* one : {"drop first", "drop last", "drop all", "repeat", "turn round"})
      out.emplace_back(one);
  }
  return out;
}

void list_lies(const Descriptor& type, const std::string& prefix, int depth,
               std::vector<Lie>& out) {
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    const std::string name = prefix + field.name();
    for (std::string& way : ways_of(field)) out.push_back({name, std::move(way)});
    if (is_message(field) && depth < 3)
      list_lies(*field.message_type(), name + ".", depth + 1, out);
  }
}

// Another one than `now`, the next in order, so that runs repeat.
const std::string* another(const std::set<std::string>& values, const std::string& now) {
  auto found = values.upper_bound(now);
  if (found == values.end()) found = values.begin();
  return found == values.end() || *found == now ? nullptr : &*found;
}

bool bend(const std::string& what, std::string& value, const std::set<std::string>& same,
          const std::set<std::string>& any) {
  if (value.empty()) {
    if (what != "other" || same.empty()) return false;
    value = *same.begin();
    return true;
  }
  if (what == "clear") {
    value.clear();
  } else if (what == "cut") {
    value.pop_back();
  } else if (what == "flip first") {
    value.front() = static_cast<char>(value.front() ^ 1);
  } else if (what == "flip middle") {
    value[value.size() / 2] = static_cast<char>(value[value.size() / 2] ^ 0x10);
  } else if (what == "flip last") {
    value.back() = static_cast<char>(value.back() ^ 0x40);
  } else {
    const std::string* const found = another(what == "other" ? same : any, value);
    if (found == nullptr) return false;
    value = *found;
  }
  return true;
}

template <typename Number>
Number bent_number(const std::string& what, Number value) {
  if (what == "zero") return 0;
  if (what == "one more") return static_cast<Number>(value + 1);
  if (what == "one less") return static_cast<Number>(value - 1);
  return std::numeric_limits<Number>::max();
}

bool bend_scalar(const std::string& what, const FieldDescriptor& field, Message& message) {
  const Reflection& r = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      r.SetBool(&message, &field, !r.GetBool(message, &field));
      return true;
    case FieldDescriptor::CPPTYPE_ENUM: {
      const int count = field.enum_type()->value_count();
      r.SetEnumValue(&message, &field, (r.GetEnumValue(message, &field) + 1) % count);
      return true;
    }
    case FieldDescriptor::CPPTYPE_UINT32: {
      const auto now = r.GetUInt32(message, &field);
      r.SetUInt32(&message, &field, bent_number(what, now));
      return true;
    }
    case FieldDescriptor::CPPTYPE_UINT64: {
      const auto now = r.GetUInt64(message, &field);
      r.SetUInt64(&message, &field, bent_number(what, now));
      return true;
    }
    default:
      return false;
  }
}

bool bend_repeated(const std::string& what, const FieldDescriptor& field, const Heard& heard,
                   Message& message) {
  const Reflection& r = *message.GetReflection();
  const int count = r.FieldSize(message, &field);
  if (what == "drop all" || (what == "clear" && is_message(field))) {
    r.ClearField(&message, &field);
    return count > 0;
  }
  if (what == "drop last") {
    if (count > 0) r.RemoveLast(&message, &field);
    return count > 0;
  }
  if (what == "drop first" || what == "turn round") {
    if (count < (what == "turn round" ? 2 : 1)) return false;
    if (what == "turn round") {
      for (int i = 0; i < count / 2; ++i) r.SwapElements(&message, &field, i, count - 1 - i);
      return true;
    }
    for (int i = 0; i + 1 < count; ++i) r.SwapElements(&message, &field, i, i + 1);
    r.RemoveLast(&message, &field);
    return true;
  }
  if (is_message(field)) {
    if (what == "repeat") {
      if (count == 0) return false;
      r.AddMessage(&message, &field)->CopyFrom(r.GetRepeatedMessage(message, &field, 0));
      return true;
    }
    for (const std::string& one : heard.elements(field.full_name())) {  // "other"
      if (count == 0) {
        r.AddMessage(&message, &field)->ParseFromString(one);
        return true;
      }
      if (r.GetRepeatedMessage(message, &field, 0).SerializeAsString() == one) continue;
      return r.MutableRepeatedMessage(&message, &field, 0)->ParseFromString(one);
    }
    return false;
  }
  if (!is_text(field)) return false;
  if (what == "repeat") {
    if (count == 0) return false;
    r.AddString(&message, &field, r.GetRepeatedString(message, &field, 0));
    return true;
  }
  if (count == 0) {
    const auto& known = heard.values(field.full_name());
    if (what != "other" || known.empty()) return false;
    r.AddString(&message, &field, *known.begin());
    return true;
  }
  std::string value = r.GetRepeatedString(message, &field, count - 1);
  if (!bend(what, value, heard.values(field.full_name()), heard.values_of_length(value.size())))
    return false;
  r.SetRepeatedString(&message, &field, count - 1, value);
  return true;
}

bool bend_field(const std::string& what, const FieldDescriptor& field, const Heard& heard,
                Message& message) {
  const Reflection& r = *message.GetReflection();
  if (field.is_repeated()) return bend_repeated(what, field, heard, message);
  if (is_message(field)) {
    const bool there = r.HasField(message, &field);
    if (what == "clear") {
      r.ClearField(&message, &field);
      return there;
    }
    for (const std::string& one : heard.elements(field.full_name())) {
      if (there && r.GetMessage(message, &field).SerializeAsString() == one) continue;
      return r.MutableMessage(&message, &field)->ParseFromString(one);
    }
    return false;
  }
  if (!is_text(field)) return bend_scalar(what, field, message);
  std::string value = r.GetString(message, &field);
  const bool bytes = field.type() == FieldDescriptor::TYPE_BYTES;
  if (!bend(what, value, heard.values(field.full_name()),
            bytes ? heard.values_of_length(value.size()) : heard.values(field.full_name())))
    return false;
  r.SetString(&message, &field, value);
  return true;
}

bool bend_path(const std::string& path, const std::string& what, const Heard& heard,
               Message& message) {
  const std::size_t dot = path.find('.');
  const FieldDescriptor* const field =
      message.GetDescriptor()->FindFieldByName(path.substr(0, dot));
  if (dot == std::string::npos) return bend_field(what, *field, heard, message);
  const Reflection& r = *message.GetReflection();
  const std::string rest = path.substr(dot + 1);
  if (!field->is_repeated()) {
    return r.HasField(message, field) &&
           bend_path(rest, what, heard, *r.MutableMessage(&message, field));
  }
  bool changed = false;
  for (int i = 0; i < r.FieldSize(message, field) && !changed; ++i)
    changed = bend_path(rest, what, heard, *r.MutableRepeatedMessage(&message, field, i));
  return changed;
}

}  // namespace

std::unique_ptr<Message> new_message(const Descriptor& type) {
  return std::unique_ptr<Message>(
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(&type)->New());
}

void Heard::note(const std::string& method, const Message& message) {
  std::vector<std::string>& all = replies_[method];
  std::string bytes = message.SerializeAsString();
  if (std::find(all.begin(), all.end(), bytes) == all.end()) all.push_back(std::move(bytes));
  note_fields(message);
}

void Heard::note_fields(const Message& message) {
  const Reflection& r = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  r.ListFields(message, &fields);
  const auto value = [&](const FieldDescriptor& field, const std::string& text) {
    values_[field.full_name()].insert(text);
    if (field.type() == FieldDescriptor::TYPE_BYTES) lengths_[text.size()].insert(text);
  };
  const auto element = [&](const FieldDescriptor& field, const Message& part) {
    std::vector<std::string>& all = elements_[field.full_name()];
    std::string bytes = part.SerializeAsString();
    if (std::find(all.begin(), all.end(), bytes) == all.end()) all.push_back(std::move(bytes));
    note_fields(part);
  };
  for (const FieldDescriptor* field : fields) {
    const int count = field->is_repeated() ? r.FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      if (is_message(*field))
        element(*field, field->is_repeated() ? r.GetRepeatedMessage(message, field, i)
                                             : r.GetMessage(message, field));
      else if (is_text(*field))
        value(*field, field->is_repeated() ? r.GetRepeatedString(message, field, i)
                                           : r.GetString(message, field));
    }
  }
}

const std::vector<std::string>& Heard::replies(const std::string& method) const {
  return at_or_empty(replies_, method);
}
const std::set<std::string>& Heard::values(const std::string& field) const {
  return at_or_empty(values_, field);
}
const std::set<std::string>& Heard::values_of_length(std::size_t bytes) const {
  return at_or_empty(lengths_, bytes);
}
const std::vector<std::string>& Heard::elements(const std::string& field) const {
  return at_or_empty(elements_, field);
}

std::vector<Lie> lies_about(const Descriptor& type) {
  std::vector<Lie> out = {{"", "replay first"}, {"", "replay last"}, {"", "empty"},
                          {"", "lost"},         {"", "cut off"},     {"", "noise"}};
  list_lies(type, "", 0, out);
  return out;
}

bool tell_lie(const Lie& lie, const Heard& heard, const std::string& method, Message& message) {
  const std::string before = message.SerializeAsString();
  if (lie.field.empty()) {
    const auto& all = heard.replies(method);
    if (lie.what == "empty") message.Clear();
    if (lie.what == "replay first" && !all.empty()) message.ParseFromString(all.front());
    if (lie.what == "replay last" && !all.empty()) message.ParseFromString(all.back());
  } else if (!bend_path(lie.field, lie.what, heard, message)) {
    return false;
  }
  return message.SerializeAsString() != before;
}

}  // namespace dims::test
