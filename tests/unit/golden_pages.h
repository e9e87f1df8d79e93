// What binds a format's page, its code and its golden file. A golden file changes only with the
// format's version: DIMS_GOLDEN_WRITE=1 writes those that are missing, never one that is there.
#pragma once

#include <catch2/catch.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "common/base/clock.h"

namespace dims::test {

inline std::string read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

inline std::string hex_lines(ByteView bytes) {
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 32) {
    out += to_hex(bytes.subspan(i, std::min<std::size_t>(32, bytes.size() - i))) + "\n";
  }
  return out;
}

inline std::string golden_text(const std::string& name, const std::string& made) {
  const std::string path = std::string(DIMS_GOLDEN) + "/" + name;
  if (!std::filesystem::exists(path)) {
    INFO("no golden file " << path);
    REQUIRE(std::getenv("DIMS_GOLDEN_WRITE") != nullptr);
    std::ofstream(path, std::ios::binary) << made;
  }
  return read_text(path);
}

inline Bytes golden(const std::string& name, ByteView made) {
  std::string text = golden_text(name, hex_lines(made));
  std::erase(text, '\n');
  const auto bytes = from_hex(text);
  REQUIRE(bytes);
  return *bytes;
}

struct Field {
  std::size_t offset = 0, bytes = 0;
};

// The table under `heading` of a format page: rows "| offset | bytes | field | ...". Offsets must
// join.
inline std::map<std::string, Field> page_table(const std::string& page,
                                               const std::string& heading) {
  const std::string text = read_text(std::string(DIMS_FORMAT_PAGES) + "/" + page);
  const std::size_t at = text.find("\n## " + heading + "\n");
  INFO(page << ": " << heading);
  REQUIRE(at != std::string::npos);
  std::istringstream lines(text.substr(at + 4, text.find("\n## ", at + 4) - at - 4));
  std::map<std::string, Field> fields;
  std::size_t expected = 0;
  for (std::string line; std::getline(lines, line);) {
    Field field;
    char name[64] = {};
    if (std::sscanf(line.c_str(), "| %zu | %zu | `%63[^`]` |", &field.offset, &field.bytes, name) !=
        3)
      continue;
    INFO(line);
    CHECK(field.offset == expected);
    expected = field.offset + field.bytes;
    CHECK(fields.emplace(name, field).second);
  }
  fields["end"] = {expected, 0};
  return fields;
}

inline ByteView part(ByteView bytes, const Field& field) {
  return bytes.subspan(field.offset, field.bytes);
}
inline std::uint64_t number(ByteView bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) value |= std::uint64_t{bytes[i]} << (8 * i);
  return value;
}
inline bool equal(ByteView a, ByteView b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

// 00 01 02 ...: the fixed inputs of the golden files.
class Counting : public Random {
 public:
  explicit Counting(std::uint8_t first = 0) : next_(first) {}
  void fill(MutByteView out) override {
    for (std::uint8_t& byte : out) byte = next_++;
  }

 private:
  std::uint8_t next_;
};

}  // namespace dims::test
