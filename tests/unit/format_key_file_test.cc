// Key files: one person's keys as text.
#include <catch2/catch.hpp>

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "common/format/key_file.h"
#include "tests/unit/format_craft.h"

using namespace dims;
using namespace dims::format;
using namespace dims::test;

namespace {

bool same(const KeyFile& a, const KeyFile& b) {
  return a.org == b.org && a.domain == b.domain && a.domain_secret == b.domain_secret &&
         a.image_secret == b.image_secret && a.signing.seed == b.signing.seed &&
         a.signing.public_key == b.signing.public_key;
}

struct Folder {
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "dims-key-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path = name;
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string path;
};

}  // namespace

TEST_CASE("a key file comes back from its text") {
  SeededRandom random(seed());
  const KeyFile key = generate_key_file(random);
  CHECK(key.org.bytes == crypto::sha256(key.signing.public_key.view()).bytes);
  const std::string text = encode_key_file(key);
  const auto back = parse_key_file(text);
  REQUIRE(back.ok());
  CHECK(same(*back, key));
  CHECK(!same(generate_key_file(random), key));
}

TEST_CASE("a key file with any byte changed, cut or added is refused or still the same keys") {
  SeededRandom random(seed());
  const KeyFile key = generate_key_file(random);
  const std::string text = encode_key_file(key);
  std::size_t accepted = 0;
  const auto check = [&](const std::string& damaged) {
    const auto parsed = parse_key_file(damaged);
    if (parsed.ok()) {
      ++accepted;
      REQUIRE(same(*parsed, key));
    } else {
      REQUIRE((parsed.error().code == ErrorCode::kCorrupt ||
               parsed.error().code == ErrorCode::kUnsupported));
      REQUIRE(!parsed.error().hint.empty());
    }
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    for (int value = 0; value < 256; ++value) {
      std::string damaged = text;
      damaged[i] = static_cast<char>(value);
      if (damaged[i] == text[i]) continue;
      INFO("byte " << i << " to " << value);
      check(damaged);
    }
  }
  CHECK(accepted < 32);  // white space about the check line
  accepted = 0;
  for (std::size_t n = 0; n < text.size(); ++n) check(text.substr(0, n));
  CHECK(accepted == 1);  // only the last line feed may go
}

TEST_CASE("nothing may follow the check line, which it would not cover") {
  SeededRandom random(seed());
  const KeyFile key = generate_key_file(random);
  std::string text = encode_key_file(key);
  // The image secret moved behind the check, which then covers the rest only.
  const std::size_t at = text.find("image-secret"), end = text.find('\n', at) + 1;
  const std::string line = text.substr(at, end - at);
  text.erase(at, end - at);
  text.resize(text.find("check = "));
  text += "check = " + to_hex(crypto::sha256(as_bytes(text)).view().first(8)) + "\n" + line;
  const auto parsed = parse_key_file(text);
  REQUIRE(!parsed.ok());
  CHECK(parsed.error().code == ErrorCode::kCorrupt);
}

TEST_CASE("what is no key file is named as such") {
  CHECK(parse_key_file("").error().message.find("not a key file") != std::string::npos);
  CHECK(parse_key_file("-----BEGIN PRIVATE KEY-----\n").error().code == ErrorCode::kCorrupt);
  CHECK(parse_key_file("dims-key 2\n").error().code == ErrorCode::kUnsupported);
  CHECK(parse_key_file(std::string(5000, 'x')).error().code == ErrorCode::kCorrupt);
  SeededRandom random(seed());
  const std::string text = encode_key_file(generate_key_file(random));
  std::string twice = text;
  twice.insert(twice.find("check"),
               twice.substr(twice.find("org"), twice.find("domain") - twice.find("org")));
  CHECK(parse_key_file(twice).error().message.find("repeats") != std::string::npos);
  for (int round = 0; round < 2000; ++round) {
    std::string noise = "dims-key 1\n";
    for (std::uint64_t i = 0; i < random.below(200); ++i)
      noise += static_cast<char>(random.below(64) + 10);
    CHECK(!parse_key_file(noise).ok());
  }
}

TEST_CASE("a key file on disk is private and never overwritten") {
  Folder folder;
  const std::string path = folder.path + "/key";
  SeededRandom random(seed());
  const KeyFile key = generate_key_file(random);
  const auto absent = load_key_file(path);
  REQUIRE(!absent.ok());
  CHECK(absent.error().code == ErrorCode::kNotFound);
  CHECK(absent.error().hint.find("rdim key new") != std::string::npos);
  REQUIRE(create_key_file(path, key).ok());
  struct stat st {};
  REQUIRE(::stat(path.c_str(), &st) == 0);
  CHECK((st.st_mode & 0777) == 0600);
  CHECK(same(*load_key_file(path), key));
  const Status again = create_key_file(path, generate_key_file(random));
  REQUIRE(!again.ok());
  CHECK(again.error().code == ErrorCode::kAlreadyExists);
  CHECK(same(*load_key_file(path), key));
  for (const ::mode_t mode : {0640U, 0604U, 0660U, 0644U, 0610U}) {
    REQUIRE(::chmod(path.c_str(), mode) == 0);
    const auto open_to_others = load_key_file(path);
    REQUIRE(!open_to_others.ok());
    CHECK(open_to_others.error().code == ErrorCode::kPermissionDenied);
    CHECK(open_to_others.error().hint.find("chmod 600") != std::string::npos);
  }
  REQUIRE(::chmod(path.c_str(), 0400) == 0);
  CHECK(load_key_file(path).ok());
  REQUIRE(::chmod(path.c_str(), 0600) == 0);
  std::filesystem::resize_file(path, 200);
  const auto cut = load_key_file(path);
  REQUIRE(!cut.ok());
  CHECK(cut.error().code == ErrorCode::kCorrupt);
  CHECK(cut.error().message.find(path) != std::string::npos);
}

TEST_CASE("the key check tells another key file and another image") {
  SeededRandom random(seed());
  const KeyFile key = generate_key_file(random);
  const auto image = random.id<ImageId>(), other = random.id<ImageId>();
  CHECK(key.key_check(image) == key.key_check(image));
  CHECK(!(key.key_check(image) == key.key_check(other)));
  CHECK(!(key.image_key(image) == key.image_key(other)));
  CHECK(!(key.image_key(image) == key.local_key()));
  KeyFile wrong = key;
  wrong.image_secret = [&] {
    Secret32 bent = wrong.image_secret;
    bent.bytes[0] ^= 1;
    return bent;
  }();
  CHECK(!(wrong.key_check(image) == key.key_check(image)));
  wrong = key;
  wrong.domain_secret = [&] {
    Secret32 bent = wrong.domain_secret;
    bent.bytes[31] ^= 1;
    return bent;
  }();
  CHECK(!(wrong.key_check(image) == key.key_check(image)));
  wrong = key;
  wrong.domain.bytes[0] ^= 1;
  CHECK(!(wrong.key_check(image) == key.key_check(image)));
}
