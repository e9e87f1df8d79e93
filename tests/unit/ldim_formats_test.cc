// The cache folder's own files and the state file: the golden files, the code,
// docs/formats/cache-folder.md and docs/formats/ldim-state.md say the same.
#include <catch2/catch.hpp>

#include <fstream>
#include <map>

#include "common/io/memory_file.h"
#include "nbdkit-ldim/disk/cache_folder.h"
#include "nbdkit-ldim/writeback/state_file.h"

using namespace dims;
using namespace dims::ldim;

namespace {

// "name hex" lines; '#' begins a comment.
std::map<std::string, Bytes> read_golden(const std::string& name) {
  std::ifstream in(std::string(DIMS_GOLDEN_FOLDER "/") + name);
  REQUIRE(in.good());
  std::map<std::string, Bytes> golden;
  for (std::string line; std::getline(in, line);) {
    if (line.empty() || line[0] == '#') continue;
    const auto space = line.find(' ');
    REQUIRE(space != std::string::npos);
    const auto bytes = from_hex(line.substr(space + 1));
    REQUIRE(bytes);
    golden[line.substr(0, space)] = *bytes;
  }
  return golden;
}

// first, first + 1, ...: the fixed inputs of the golden files.
class Counting : public Random {
 public:
  explicit Counting(std::uint8_t first) : next_(first) {}
  void fill(MutByteView out) override {
    for (std::uint8_t& byte : out) byte = next_++;
  }

 private:
  std::uint8_t next_;
};

template <typename IdType>
IdType counting(std::uint8_t first) {
  return Counting(first).id<IdType>();
}

format::KeyFile example_key() {
  format::KeyFile key;
  key.org = counting<OrgId>(0x01);
  key.domain = counting<DomainId>(0x21);
  key.domain_secret = counting<Secret32>(0x31);
  key.image_secret = counting<Secret32>(0x51);
  return key;
}

LdimState example_state() {
  LdimState s;
  s.image_name = "desk";
  s.home_image = counting<ImageId>(0x71);
  s.image = counting<ImageId>(0x81);
  s.branch_name = "desk.conflict-pc-3";
  s.planned_branch = counting<ImageId>(0x89);
  s.planned_name = "desk.conflict-pc-3-2";
  s.session = counting<SessionId>(0x91);
  s.mode = "personal";
  s.session_open = true;
  s.boot_id = "01234567-89ab-cdef-0123-456789abcdef";
  s.base = counting<VersionId>(0xa1);
  s.base_record.resize(448);
  Counting(0).fill(s.base_record);
  s.image_bytes = 0x123456789a;
  s.tree = {256, 32, 16384};
  s.committed = {counting<JournalId>(0xc1), 0x4d, counting<Digest>(0xd1)};
  return s;
}

const std::string kFolder = "/cache";

// The folder of the golden file, made by the code.
struct Folder {
  io::MemoryFileSystem fs;
  Counting random{0x00};
  format::KeyFile key = example_key();
  ImageId image = counting<ImageId>(0x71);
  FolderIdentity identity;
  FolderKeys keys;

  Folder() {
    auto made = prepare_folder(fs, kFolder, image, key, random);
    REQUIRE(made.ok());
    identity = *made;
    auto opened = open_folder_keys(fs, kFolder, identity, key, random);
    REQUIRE(opened.ok());
    keys = *opened;
  }
  Bytes file(const std::string& name) {
    auto bytes = io::read_file(fs, kFolder + "/" + name, 64 * kKiB);
    REQUIRE(bytes.ok());
    return *bytes;
  }
  void put(const std::string& name, ByteView bytes) {
    REQUIRE(io::replace_file(fs, kFolder + "/" + name, bytes).ok());
  }
};

std::string text(ByteView bytes) { return std::string(as_text(bytes)); }

}  // namespace

TEST_CASE("the cache folder's own files are what the golden file says") {
  const auto golden = read_golden("cache_folder_v1.hex");
  Folder folder;
  CHECK(text(folder.file("identity")) == text(golden.at("identity")));
  CHECK(to_hex(folder.file("machine-secret")) == to_hex(golden.at("machine-secret")));
  CHECK(to_hex(folder.file("keys")) == to_hex(golden.at("keys")));
  CHECK(to_hex(folder.keys.state.view()) == to_hex(golden.at("state-key")));
  CHECK(folder.keys.journal == counting<Secret32>(0x30));
  CHECK(folder.keys.pages == counting<Secret32>(0x50));
  CHECK(folder.file("identity").size() == 199);
  CHECK(folder.file("keys").size() == 24 + 64 + 16);

  SECTION("and are read back") {
    const auto known = read_identity(folder.fs, kFolder);
    REQUIRE(known.ok());
    REQUIRE(known->has_value());
    CHECK((*known)->machine == folder.identity.machine);
    CHECK((*known)->image == folder.image);
    CHECK((*known)->key_check == folder.key.key_check(folder.image));
    Counting other(0x99);  // nothing is drawn anew
    const auto again = prepare_folder(folder.fs, kFolder, folder.image, folder.key, other);
    REQUIRE(again.ok());
    CHECK(again->machine == folder.identity.machine);
    const auto keys = open_folder_keys(folder.fs, kFolder, *again, folder.key, other);
    REQUIRE(keys.ok());
    CHECK(keys->journal == folder.keys.journal);
    CHECK(keys->pages == folder.keys.pages);
    CHECK(keys->state == folder.keys.state);
  }
}

TEST_CASE("any byte of the identity that changes, goes or comes is noticed") {
  Folder folder;
  const Bytes good = folder.file("identity");
  const auto refused = [&](const Bytes& bytes) {
    folder.put("identity", bytes);
    const auto known = read_identity(folder.fs, kFolder);
    REQUIRE(!known.ok());
    CHECK((known.error().code == ErrorCode::kCorrupt ||
           known.error().code == ErrorCode::kUnsupported));
    CHECK(known.error().message.find(kFolder + "/identity") != std::string::npos);
  };
  for (std::size_t i = 0; i < good.size(); ++i) {
    INFO("byte " << i);
    Bytes bent = good;
    bent[i] ^= 0x01;
    refused(bent);
    refused(Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(i)));
  }
  Bytes longer = good;
  longer.push_back('\n');
  refused(longer);
}

TEST_CASE("an identity of a future format says so") {
  Folder folder;
  std::string future = text(folder.file("identity"));
  future.replace(0, 12, "dims-cache 2");
  folder.put("identity", as_bytes(future));
  const auto known = read_identity(folder.fs, kFolder);
  REQUIRE(!known.ok());
  CHECK(known.error().code == ErrorCode::kUnsupported);
}

TEST_CASE("folder keys open only with their key file, machine secret, machine and image") {
  Folder folder;
  const auto refused = [&](const FolderIdentity& identity, const format::KeyFile& key) {
    const auto keys = open_folder_keys(folder.fs, kFolder, identity, key, folder.random);
    REQUIRE(!keys.ok());
    CHECK(keys.error().code == ErrorCode::kCorrupt);
  };
  SECTION("another key file") {
    format::KeyFile other = folder.key;
    other.image_secret = [&] {
      Secret32 bent = other.image_secret;
      bent.bytes[0] ^= 1;
      return bent;
    }();
    refused(folder.identity, other);
  }
  SECTION("another machine id") {
    FolderIdentity other = folder.identity;
    other.machine.bytes[0] ^= 1;
    refused(other, folder.key);
  }
  SECTION("another image id") {
    FolderIdentity other = folder.identity;
    other.image.bytes[0] ^= 1;
    refused(other, folder.key);
  }
  SECTION("another machine secret, or a short one") {
    Bytes secret = folder.file("machine-secret");
    secret[31] ^= 1;
    folder.put("machine-secret", secret);
    refused(folder.identity, folder.key);
    secret.pop_back();
    folder.put("machine-secret", secret);
    refused(folder.identity, folder.key);
  }
  SECTION("any byte of the file") {
    const Bytes good = folder.file("keys");
    for (std::size_t i = 0; i < good.size(); ++i) {
      Bytes bent = good;
      bent[i] ^= 0x80;
      folder.put("keys", bent);
      refused(folder.identity, folder.key);
    }
  }
}

TEST_CASE("a folder of another image, of another key or full of other things is left alone") {
  Folder folder;
  const auto code_of = [&](const std::string& path, const ImageId& image,
                           const format::KeyFile& key) {
    const auto made = prepare_folder(folder.fs, path, image, key, folder.random);
    REQUIRE(!made.ok());
    return made.error().code;
  };
  CHECK(code_of(kFolder, counting<ImageId>(0x99), folder.key) == ErrorCode::kInvalidArgument);
  format::KeyFile other = folder.key;
  other.domain_secret = [&] {
    Secret32 bent = other.domain_secret;
    bent.bytes[5] ^= 1;
    return bent;
  }();
  CHECK(code_of(kFolder, folder.image, other) == ErrorCode::kWrongKey);

  REQUIRE(folder.fs.make_folder("/home").ok());
  REQUIRE(io::replace_file(folder.fs, "/home/letter.txt", as_bytes("hello")).ok());
  CHECK(code_of("/home", folder.image, folder.key) == ErrorCode::kInvalidArgument);
  const auto names = folder.fs.list("/home");
  REQUIRE(names.ok());
  CHECK(*names == std::vector<std::string>{"letter.txt"});
}

TEST_CASE("a first start that a power cut ended is begun again") {
  for (const char* left : {"machine-secret.new", "machine-secret", "identity.new", "lock"}) {
    INFO(left);
    io::MemoryFileSystem fs;
    REQUIRE(fs.make_folder(kFolder).ok());
    auto file = fs.open(kFolder + "/" + left, io::OpenMode::kCreate);
    REQUIRE(file.ok());
    REQUIRE((*file)->write_at(0, as_bytes("half")).ok());
    Counting random(0);
    const auto made = prepare_folder(fs, kFolder, counting<ImageId>(0x71), example_key(), random);
    REQUIRE(made.ok());
    CHECK(open_folder_keys(fs, kFolder, *made, example_key(), random).ok());
  }
}

TEST_CASE("the state file is what the golden file says") {
  const auto golden = read_golden("ldim_state_v1.hex");
  const LdimState state = example_state();
  CHECK(to_hex(encode_state(state)) == to_hex(golden.at("plain")));
  Folder folder;
  Counting random(0x90);
  StateFile file(folder.fs, kFolder + "/state", folder.keys.state, folder.identity.machine, random);
  REQUIRE(file.store(state).ok());
  CHECK(to_hex(folder.file("state")) == to_hex(golden.at("sealed")));

  StateFile again(folder.fs, kFolder + "/state", folder.keys.state, folder.identity.machine,
                  random);
  const auto loaded = again.load();
  REQUIRE(loaded.ok());
  REQUIRE(loaded->has_value());
  CHECK(to_hex(encode_state(**loaded)) == to_hex(golden.at("plain")));
  CHECK(to_hex(encode_state(again.current())) == to_hex(golden.at("plain")));
}

TEST_CASE("a state file that is not there is no error; a damaged, foreign or future one is") {
  Folder folder;
  Counting random(0x90);
  StateFile file(folder.fs, kFolder + "/state", folder.keys.state, folder.identity.machine, random);
  const auto none = file.load();
  REQUIRE(none.ok());
  CHECK(!none->has_value());
  REQUIRE(file.store(example_state()).ok());
  const Bytes good = folder.file("state");
  SECTION("any byte changed") {
    for (std::size_t i = 0; i < good.size(); ++i) {
      Bytes bent = good;
      bent[i] ^= 0x10;
      folder.put("state", bent);
      const auto loaded = file.load();
      REQUIRE(!loaded.ok());
      CHECK(loaded.error().code == ErrorCode::kCorrupt);
    }
  }
  SECTION("another machine or key") {
    StateFile machine(folder.fs, kFolder + "/state", folder.keys.state, counting<MachineId>(0x55),
                      random);
    CHECK(!machine.load().ok());
    StateFile key(folder.fs, kFolder + "/state", counting<Secret32>(0x55), folder.identity.machine,
                  random);
    CHECK(!key.load().ok());
  }
  SECTION("the plain text, well sealed but wrong") {
    const Bytes plain = encode_state(example_state());
    Bytes magic = plain;
    magic[0] ^= 1;
    CHECK(decode_state(magic).error().code == ErrorCode::kCorrupt);
    Bytes future = plain;
    future[4] = 3;
    CHECK(decode_state(future).error().code == ErrorCode::kUnsupported);
    Bytes longer = plain;
    longer.push_back(0);
    CHECK(decode_state(longer).error().code == ErrorCode::kCorrupt);
    for (std::size_t n = 0; n < plain.size(); ++n)
      CHECK(!decode_state(ByteView(plain).first(n)).ok());
  }
}

TEST_CASE("on a branch the state says which version of the home image was seen last") {
  LdimState state = example_state();
  state.home_base = counting<VersionId>(0x31);
  state.home_sequence = 41;
  const Bytes plain = encode_state(state);
  CHECK(plain[4] == 2);
  CHECK(plain.size() == encode_state(example_state()).size() + 40);
  const auto back = decode_state(plain);
  REQUIRE(back.ok());
  CHECK(back->home_base == state.home_base);
  CHECK(back->home_sequence == 41);
  CHECK(encode_state(*back) == plain);
  for (std::size_t n = 0; n < plain.size(); ++n)
    CHECK(!decode_state(ByteView(plain).first(n)).ok());
  // On the image itself it is the base, and the format is the first one.
  state.home_base = state.base;
  CHECK(encode_state(state) == encode_state(example_state()));
}
