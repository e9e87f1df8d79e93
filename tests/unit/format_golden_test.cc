// Binds three statements of each format: the page in docs/formats, the code, and a file written
// once (tests/unit/golden). A golden file changes only with the format's version:
// DIMS_GOLDEN_WRITE=1 writes those that are missing, never one that is there.
#include <catch2/catch.hpp>

#include "common/format/key_file.h"
#include "common/format/version.h"
#include "tests/unit/format_craft.h"
#include "tests/unit/golden_pages.h"

using namespace dims;
using namespace dims::format;
using namespace dims::test;

static_assert(kPageBytes == 4096 && kMaxChunkPages == 32 && kPadBytes == 512 &&
              kMaxChildren == 1024);
static_assert(kMaxPayloadBytes == 256 * 1024 && kMaxObjectBytes == 320 * 1024);
static_assert(kVersionRecordBytes == 448 && kSealedRootKeyBytes == 72);
static_assert(crypto::kTagBytes == 16 && crypto::kWrapOverheadBytes == 40);
static_assert(ObjectId::kBytes == 32 && VersionId::kBytes == 32 && DomainId::kBytes == 16 &&
              Secret32::kBytes == 32);

namespace {

Bytes counting_page() {
  Bytes page(kPageBytes);
  for (std::size_t i = 0; i < page.size(); ++i) page[i] = static_cast<std::uint8_t>(i / 16);
  return page;
}

Reference counting_reference(std::uint8_t first) {
  Counting values(first);
  return {test_domain_key().domain(), values.id<ObjectId>(), values.id<Secret32>()};
}

// Opens with the primitives alone, after the page.
Bytes payload_of(const Reference& ref, ByteView object, std::size_t head_bytes) {
  const std::size_t ad = head_bytes + 32;
  Bytes payload(object.size() - ad - 16);
  REQUIRE(crypto::open_once(ref.key, object.first(ad), object.subspan(ad, payload.size()),
                            object.data() + ad + payload.size(), payload.data()));
  return payload;
}

void check_head(ByteView object, std::uint8_t kind, std::uint8_t level, std::size_t children,
                std::size_t domains) {
  auto head = page_table("object.md", "Head");
  CHECK(head.at("end").offset == 40);
  CHECK(as_text(part(object, head.at("magic"))) == "DOJ1");
  CHECK(number(part(object, head.at("version"))) == 1);
  CHECK(number(part(object, head.at("kind"))) == kind);
  CHECK(number(part(object, head.at("level"))) == level);
  CHECK(number(part(object, head.at("domain count"))) == domains);
  CHECK(equal(part(object, head.at("domain")), test_domain_key().domain().view()));
  CHECK(number(part(object, head.at("epoch"))) == 1);
  const std::size_t head_bytes = 40 + 16 * domains + 33 * children;
  CHECK(number(part(object, head.at("payload bytes"))) == object.size() - head_bytes - 32 - 16);
  CHECK(number(part(object, head.at("child count"))) == children);
  CHECK(number(part(object, head.at("reserved"))) == 0);
}

}  // namespace

TEST_CASE("golden: a raw chunk") {
  const SealedObject made = seal_chunk(test_domain_key(), counting_page(), false);
  const Bytes bytes = golden("object_chunk_raw.hex", made.bytes);
  CHECK(bytes == made.bytes);
  check_head(bytes, 1, 0, 0, 0);
  const Bytes payload = payload_of(made.ref, bytes, 40);
  auto fields = page_table("object.md", "Payload");
  CHECK(fields.at("end").offset == 16);
  CHECK(number(part(payload, fields.at("codec"))) == 0);
  CHECK(number(part(payload, fields.at("page count"))) == 1);
  CHECK(number(part(payload, fields.at("data bytes"))) == 4096);
  CHECK(number(part(payload, fields.at("raw bytes"))) == 4096);
  CHECK(equal(ByteView(payload).subspan(16, 4096), counting_page()));
  CHECK(is_all_zero(ByteView(payload).subspan(16 + 4096)));
  CHECK(payload.size() == 4608);
}

// Another version of zstd may pack otherwise; what was packed once must open for ever.
TEST_CASE("golden: a packed chunk opens") {
  const Bytes key_and_object = [] {
    const SealedObject made = seal_chunk(test_domain_key(), counting_page(), true);
    Bytes out(made.ref.key.bytes.begin(), made.ref.key.bytes.end());
    out.insert(out.end(), made.bytes.begin(), made.bytes.end());
    return golden("object_chunk_zstd.hex", out);
  }();
  const ByteView object = ByteView(key_and_object).subspan(32);
  check_head(object, 1, 0, 0, 0);
  const Reference ref{test_domain_key().domain(), object_id(object),
                      *Secret32::from_view(ByteView(key_and_object).first(32))};
  CHECK(*open_object(ref, object) == counting_page());
  auto fields = page_table("object.md", "Payload");
  CHECK(number(part(payload_of(ref, object, 40), fields.at("codec"))) == 1);
}

TEST_CASE("golden: a leaf") {
  const Reference one = counting_reference(0x10), two = counting_reference(0x60);
  Leaf leaf;
  leaf.extents = {{0, 4, 0, one}, {4, 1, 0, two}, {5, 2, 5, one}};
  const SealedObject made = encode_leaf(test_domain_key(), leaf);
  const Bytes bytes = golden("node_leaf.hex", made.bytes);
  CHECK(bytes == made.bytes);
  check_head(bytes, 2, 1, 2, 1);
  CHECK(equal(ByteView(bytes).subspan(40, 16), one.domain.view()));
  CHECK(bytes[56] == 0);
  CHECK(equal(ByteView(bytes).subspan(57, 32), one.id.view()));
  CHECK(equal(ByteView(bytes).subspan(90, 32), two.id.view()));
  const Bytes payload = payload_of(made.ref, bytes, 40 + 16 + 2 * 33);
  auto entry = page_table("node.md", "Entry of a leaf");
  const std::size_t entry_bytes = entry.at("end").offset;
  CHECK(entry_bytes == 8);
  const ByteView data = ByteView(payload).subspan(16);
  CHECK(number(data.first(4)) == 3);
  const ByteView third = data.subspan(4 + 2 * entry_bytes, entry_bytes);
  CHECK(number(part(third, entry.at("first page"))) == 5);
  CHECK(number(part(third, entry.at("page count"))) == 2);
  CHECK(number(part(third, entry.at("first in chunk"))) == 5);
  CHECK(number(part(third, entry.at("child"))) == 0);
  CHECK(equal(data.subspan(4 + 3 * entry_bytes, 32), one.key.view()));
  CHECK(equal(data.subspan(4 + 3 * entry_bytes + 32, 32), two.key.view()));
}

TEST_CASE("golden: an inner node") {
  Inner inner;
  inner.slots.resize(32);
  inner.slots[2] = counting_reference(0x20);
  inner.slots[31] = counting_reference(0x70);
  inner.slots[31].domain.bytes[0] = 0xee;
  const SealedObject made = encode_inner(test_domain_key(), 3, inner);
  const Bytes bytes = golden("node_inner.hex", made.bytes);
  CHECK(bytes == made.bytes);
  check_head(bytes, 3, 3, 2, 2);
  const Bytes payload = payload_of(made.ref, bytes, 40 + 2 * 16 + 2 * 33);
  auto entry = page_table("node.md", "Entry of an inner node");
  const ByteView data = ByteView(payload).subspan(16);
  CHECK(number(data.first(4)) == 2);
  const ByteView second = data.subspan(4 + entry.at("end").offset, entry.at("end").offset);
  CHECK(number(part(second, entry.at("slot"))) == 31);
  CHECK(number(part(second, entry.at("reserved"))) == 0);
  CHECK(number(part(second, entry.at("child"))) == 1);
  CHECK(equal(data.subspan(4 + 2 * 8 + 32, 32), inner.slots[31].key.view()));
}

TEST_CASE("golden: a version record") {
  Counting values;
  const auto key = crypto::signing_key_from_seed(values.id<Secret32>());
  VersionRecord v;
  v.org = values.id<OrgId>();
  v.parent = values.id<VersionId>();
  v.image = values.id<ImageId>();
  v.root = {values.id<DomainId>(), values.id<ObjectId>()};
  v.image_bytes = 0x123456789000;
  v.tree = {256, 32, 16384};
  v.generation = values.id<GenerationId>();
  v.sequence = 42;
  v.commit = {values.id<JournalId>(), 77, values.id<Digest>()};
  v.domain_epoch = 1;
  v.image_epoch = 2;
  v.time_unix_ns = 1'700'000'000'000'000'000;
  v.machine = values.id<MachineId>();
  const auto image_key = values.id<Secret32>();
  seal_root_key(v, image_key, values.id<Secret32>(), values);
  const Bytes made = encode_version(v, key);
  const Bytes bytes = golden("version.hex", made);
  CHECK(bytes == made);
  CHECK(open_root(*decode_version(bytes), image_key).ok());
  auto fields = page_table("version.md", "Record");
  CHECK(fields.at("end").offset == kVersionRecordBytes);
  const auto at = [&](const char* name) { return part(bytes, fields.at(name)); };
  CHECK(as_text(at("magic")) == "VER1");
  CHECK(number(at("format")) == 1);
  CHECK(equal(at("org"), v.org.view()));
  CHECK(equal(at("parent"), v.parent.view()));
  CHECK(equal(at("image"), v.image.view()));
  CHECK(equal(at("root domain"), v.root.domain.view()));
  CHECK(equal(at("root id"), v.root.id.view()));
  CHECK(equal(at("sealed root key"), v.sealed_root_key));
  CHECK(number(at("image bytes")) == v.image_bytes);
  CHECK(number(at("leaf pages")) == 256);
  CHECK(number(at("fan-out")) == 32);
  CHECK(number(at("chunk mean")) == 16384);
  CHECK(equal(at("generation"), v.generation.view()));
  CHECK(number(at("sequence")) == 42);
  CHECK(equal(at("journal"), v.commit.journal.view()));
  CHECK(number(at("journal epoch")) == 77);
  CHECK(equal(at("journal digest"), v.commit.digest.view()));
  CHECK(number(at("domain epoch")) == 1);
  CHECK(number(at("image epoch")) == 2);
  CHECK(number(at("time")) == v.time_unix_ns);
  CHECK(equal(at("machine"), v.machine.view()));
  CHECK(equal(at("signer"), key.public_key.view()));
  CHECK(is_all_zero(at("zero")));
  const auto signature = crypto::Signature::from_view(at("signature"));
  CHECK(crypto::verify(key.public_key, "version", v.org,
                       ByteView(bytes).first(fields.at("signature").offset), *signature));
}

TEST_CASE("golden: a key file") {
  Counting values(1);
  const KeyFile key = generate_key_file(values);
  const std::string text = golden_text("key_file.txt", encode_key_file(key));
  CHECK(text == encode_key_file(key));
  CHECK(parse_key_file(text)->domain_secret == key.domain_secret);
  // The page shows this very file.
  std::string page = read_text(std::string(DIMS_FORMAT_PAGES) + "/key-file.md");
  CHECK(page.find(text) != std::string::npos);
}
