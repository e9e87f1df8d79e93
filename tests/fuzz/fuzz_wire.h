// What the targets of the wire share: the methods by number, and one input as several messages.
#pragma once

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <grpcpp/grpcpp.h>

#include <vector>

#include "tests/fuzz/fuzz_input.h"

#include "dims/v1/access.pb.h"
#include "dims/v1/dims.pb.h"

namespace dims::fuzz {

using Method = google::protobuf::MethodDescriptor;

inline std::vector<const Method*> methods() {
  std::vector<const Method*> out;
  for (const auto* file : {v1::Event::descriptor()->file(), v1::AuditEntry::descriptor()->file()}) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m) {
        out.push_back(file->service(s)->method(m));
      }
    }
  }
  return out;
}

inline std::string path_of(const Method& method) {
  return "/" + method.service()->full_name() + "/" + method.name();
}

// Messages as [u16 length, big endian][bytes]; the last one ends with the input.
inline std::vector<ByteView> pieces(ByteView input, std::size_t most) {
  std::vector<ByteView> out;
  while (input.size() >= 2 && out.size() < most) {
    const std::size_t wanted = std::size_t{input[0]} << 8 | input[1];
    input = input.subspan(2);
    out.push_back(input.first(std::min(wanted, input.size())));
    input = input.subspan(out.back().size());
  }
  return out;
}

inline void put_piece(Bytes& out, const google::protobuf::Message& message) {
  const std::string text = message.SerializeAsString();
  out.push_back(static_cast<std::uint8_t>(text.size() >> 8));
  out.push_back(static_cast<std::uint8_t>(text.size()));
  out.insert(out.end(), text.begin(), text.end());
}

inline grpc::ByteBuffer buffer_of(ByteView bytes) {
  const grpc::Slice slice(bytes.data(), bytes.size());
  return grpc::ByteBuffer(&slice, 1);
}

// A message of this type with something plausible in every field: strings of 16 and numbers.
inline void fill_in(google::protobuf::Message& message, int depth = 0) {
  using Field = google::protobuf::FieldDescriptor;
  const auto* reflection = message.GetReflection();
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const Field* const field = message.GetDescriptor()->field(i);
    if (field->cpp_type() == Field::CPPTYPE_STRING) {
      const std::string text(field->name() == "name" ? "disk" : std::string(16, 'i'));
      if (field->is_repeated())
        reflection->AddString(&message, field, text);
      else
        reflection->SetString(&message, field, text);
    } else if (field->cpp_type() == Field::CPPTYPE_MESSAGE && depth < 3 &&
               field->name() != "error") {
      fill_in(field->is_repeated() ? *reflection->AddMessage(&message, field)
                                   : *reflection->MutableMessage(&message, field),
              depth + 1);
    } else if (!field->is_repeated() && field->cpp_type() == Field::CPPTYPE_UINT64) {
      reflection->SetUInt64(&message, field, 1);
    } else if (!field->is_repeated() && field->cpp_type() == Field::CPPTYPE_UINT32) {
      reflection->SetUInt32(&message, field, 1);
    } else if (!field->is_repeated() && field->cpp_type() == Field::CPPTYPE_BOOL) {
      reflection->SetBool(&message, field, true);
    }
  }
}

inline std::unique_ptr<google::protobuf::Message> new_message(
    const google::protobuf::Descriptor* type) {
  auto* const factory = google::protobuf::MessageFactory::generated_factory();
  std::unique_ptr<google::protobuf::Message> message(factory->GetPrototype(type)->New());
  return message;
}

}  // namespace dims::fuzz
