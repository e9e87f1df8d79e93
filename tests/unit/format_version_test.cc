// Version records: chain, signature, root key.
#include <catch2/catch.hpp>

#include <limits>

#include "common/format/version.h"
#include "tests/unit/format_craft.h"

using namespace dims;
using namespace dims::format;
using namespace dims::test;

namespace {

VersionRecord random_record(SeededRandom& random) {
  VersionRecord v;
  v.org = random.id<OrgId>();
  v.parent = random.id<VersionId>();
  v.image = random.id<ImageId>();
  v.root = {random.id<DomainId>(), random.id<ObjectId>()};
  v.image_bytes = 1 + random.below(kMaxImageBytes);
  v.tree = {128, 64, 32768};
  v.generation = random.id<GenerationId>();
  v.sequence = random.next();
  v.commit = {random.id<JournalId>(), random.next(), random.id<Digest>()};
  v.domain_epoch = 3;
  v.image_epoch = 4;
  v.time_unix_ns = random.next();
  v.machine = random.id<MachineId>();
  return v;
}

}  // namespace

TEST_CASE("a version record comes back as it was written, signed") {
  SeededRandom random(seed());
  const auto key = crypto::signing_key_from_seed(random.id<Secret32>());
  for (int i = 0; i < 50; ++i) {
    const VersionRecord v = random_record(random);
    const Bytes bytes = encode_version(v, key);
    REQUIRE(bytes.size() == kVersionRecordBytes);
    const auto back = decode_version(bytes);
    REQUIRE(back.ok());
    CHECK(back->org == v.org);
    CHECK(back->parent == v.parent);
    CHECK(back->image == v.image);
    CHECK(back->root == v.root);
    CHECK(back->sealed_root_key == v.sealed_root_key);
    CHECK(back->image_bytes == v.image_bytes);
    CHECK(back->tree == v.tree);
    CHECK(back->generation == v.generation);
    CHECK(back->sequence == v.sequence);
    CHECK(back->commit == v.commit);
    CHECK(back->domain_epoch == 3);
    CHECK(back->image_epoch == 4);
    CHECK(back->time_unix_ns == v.time_unix_ns);
    CHECK(back->machine == v.machine);
    CHECK(back->signer == key.public_key);
  }
}

TEST_CASE("every bit of a version record is signed or checked") {
  SeededRandom random(seed());
  const auto key = crypto::signing_key_from_seed(random.id<Secret32>());
  const Bytes bytes = encode_version(random_record(random), key);
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    Bytes damaged = bytes;
    damaged[bit / 8] ^= static_cast<std::uint8_t>(1U << (bit % 8));
    INFO("byte " << bit / 8 << " bit " << bit % 8);
    REQUIRE(!decode_version(damaged).ok());
    REQUIRE(!(version_id(damaged) == version_id(bytes)));
  }
  for (std::size_t n = 0; n < bytes.size(); ++n)
    REQUIRE(!decode_version(ByteView(bytes).first(n)).ok());
  Bytes longer = bytes;
  longer.push_back(0);
  CHECK(!decode_version(longer).ok());
}

TEST_CASE("a record of another format, size or tree is refused although it is signed") {
  SeededRandom random(seed());
  const auto key = crypto::signing_key_from_seed(random.id<Secret32>());
  const VersionRecord good = random_record(random);
  const auto code_of = [&](const VersionRecord& v) {
    const auto decoded = decode_version(encode_version(v, key));
    return decoded.ok() ? ErrorCode::kInternal : decoded.error().code;
  };
  VersionRecord v = good;
  v.image_bytes = 0;
  CHECK(code_of(v) == ErrorCode::kCorrupt);
  v.image_bytes = kMaxImageBytes + 1;
  CHECK(code_of(v) == ErrorCode::kCorrupt);
  v.image_bytes = std::numeric_limits<std::uint64_t>::max();
  CHECK(code_of(v) == ErrorCode::kCorrupt);
  v = good;
  v.tree.fanout = 0;
  CHECK(code_of(v) == ErrorCode::kUnsupported);
  v.tree = {
      32, 4,
      4096};  // so narrow that the tree of a large disk would have more levels than a node can say
  v.image_bytes = kMaxImageBytes;
  CHECK(code_of(v) == ErrorCode::kUnsupported);
  v.image_bytes = 1024 * kGiB;
  CHECK(decode_version(encode_version(v, key)).ok());
  Bytes bytes = encode_version(good, key);
  bytes[4] = 2;
  CHECK(decode_version(bytes).error().code == ErrorCode::kUnsupported);
}

TEST_CASE("the root's key opens under its image key, for its own version only") {
  SeededRandom random(seed());
  const Secret32 image_key = random.id<Secret32>(), root_key = random.id<Secret32>();
  VersionRecord v = random_record(random);
  seal_root_key(v, image_key, root_key, random);
  const auto root = open_root(v, image_key);
  REQUIRE(root.ok());
  CHECK(root->key == root_key);
  CHECK(root->object_key() == v.root);
  CHECK(open_root(v, random.id<Secret32>()).error().code == ErrorCode::kWrongKey);
  const auto moved = [&](const auto& change) {
    VersionRecord other = v;
    change(other);
    const auto opened = open_root(other, image_key);
    return !opened.ok() && opened.error().code == ErrorCode::kWrongKey;
  };
  CHECK(moved([](VersionRecord& r) { ++r.sequence; }));
  CHECK(moved([](VersionRecord& r) { r.image.bytes[0] ^= 1; }));
  CHECK(moved([](VersionRecord& r) { r.org.bytes[0] ^= 1; }));
  CHECK(moved([](VersionRecord& r) { r.root.id.bytes[0] ^= 1; }));
  CHECK(moved([](VersionRecord& r) { r.root.domain.bytes[0] ^= 1; }));
  for (std::size_t i = 0; i < kSealedRootKeyBytes; ++i) {
    CHECK(moved([&](VersionRecord& r) { r.sealed_root_key[i] ^= 0x80; }));
  }
  VersionRecord zeros = v;
  zeros.root.id = {};
  CHECK(open_root(zeros, random.id<Secret32>())->is_zero());
}
