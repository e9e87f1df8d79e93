// Every way to change a message: each field, and each record that a field holds, cleared, bent,
// cut, repeated, put in another order, or exchanged for another of its kind or of another kind.
#pragma once

#include <google/protobuf/message.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace dims::test {

std::unique_ptr<google::protobuf::Message> new_message(const google::protobuf::Descriptor& type);

// What an honest server has said: the source of exchanges and replays.
class Heard {
 public:
  void note(const std::string& method, const google::protobuf::Message& message);
  const std::vector<std::string>& replies(const std::string& method) const;
  const std::set<std::string>& values(const std::string& field) const;
  const std::set<std::string>& values_of_length(std::size_t bytes) const;
  const std::vector<std::string>& elements(const std::string& field) const;

 private:
  void note_fields(const google::protobuf::Message& message);
  std::map<std::string, std::vector<std::string>> replies_;
  std::map<std::string, std::set<std::string>> values_;
  std::map<std::size_t, std::set<std::string>> lengths_;
  std::map<std::string, std::vector<std::string>> elements_;
};

struct Lie {
  std::string field;  // "image.head"; empty: the whole message
  std::string what;   // "flip first"
};

// All lies that a message type can be told with.
std::vector<Lie> lies_about(const google::protobuf::Descriptor& type);
// False if it changed nothing: there was nothing to change, or nothing to change it for.
bool tell_lie(const Lie& lie, const Heard& heard, const std::string& method,
              google::protobuf::Message& message);

}  // namespace dims::test
