// The catalog's records: what is written is read, and nothing else is.
#include <fstream>

#include "rdim-server/catalog/collect_state.h"
#include "tests/unit/catalog_fixture.h"

using namespace dims;
using namespace dims::catalog;
using dims::test::code_of;

namespace {

ImageRecord full_image(SeededRandom& random) {
  ImageRecord record;
  record.id = random.id<ImageId>();
  record.name = "lab/one";
  record.image_bytes = 12345;
  record.tree.chunk_mean_bytes = 16384;
  record.domain = random.id<DomainId>();
  record.base_domains = {random.id<DomainId>(), random.id<DomainId>()};
  record.key_check = random.id<Digest>();
  record.origin = random.id<VersionId>();
  record.conflict_of = "lab/zero";
  record.created_unix_ns = 99;
  record.head = random.id<VersionId>();
  record.head_sequence = 4;
  record.token = 17;
  record.lease = {random.id<LeaseId>(), random.id<MachineId>(), "pc", random.id<SessionId>()};
  record.journals.push_back(
      {{random.id<JournalId>(), 3, random.id<Digest>()}, random.id<VersionId>(), 4});
  return record;
}

}  // namespace

TEST_CASE("an image record comes back as it was") {
  SeededRandom random(test::seed());
  const ImageRecord record = full_image(random);
  const Bytes bytes = encode_image(record);
  const auto back = decode_image(bytes);
  REQUIRE(back.ok());
  CHECK(encode_image(*back) == bytes);
  CHECK(back->name == record.name);
  CHECK(back->base_domains == record.base_domains);
  CHECK(back->lease.session == record.lease.session);
  CHECK(back->journals[0].newest == record.journals[0].newest);
}

TEST_CASE("an image record with machines that may hold unsent writes comes back as it was") {
  SeededRandom random(test::seed());
  ImageRecord record = full_image(random);
  note_unsent(record, {random.id<MachineId>(), "pc2", random.id<SessionId>(), 7, 8});
  const Bytes bytes = encode_image(record);
  const auto back = decode_image(bytes);
  REQUIRE(back.ok());
  CHECK(encode_image(*back) == bytes);
  REQUIRE(back->unsent.size() == 1);
  CHECK(back->unsent[0].machine_name == "pc2");
  for (std::size_t cut = 1; cut < 40; ++cut)
    CHECK(!decode_image(ByteView(bytes).first(bytes.size() - cut)).ok());
}

TEST_CASE("a session record comes back as it was") {
  SeededRandom random(test::seed());
  SessionRecord record{random.id<MachineId>(), "pc", "shared", random.id<VersionId>(),
                       random.id<JournalId>(), 5};
  const Bytes bytes = encode_session(record);
  const auto back = decode_session(bytes);
  REQUIRE(back.ok());
  CHECK(encode_session(*back) == bytes);
  CHECK(back->mode == "shared");
}

// docs/formats/store.md. Writing it anew is a change of the format.
TEST_CASE("the records are byte for byte those of the golden file") {
  SeededRandom random(1);
  const Bytes image = encode_image(full_image(random));
  const Bytes session = encode_session(
      {random.id<MachineId>(), "pc", "shared", random.id<VersionId>(), random.id<JournalId>(), 5});
  std::ifstream file(DIMS_GOLDEN_FOLDER "/catalog_records_v1.hex");
  std::string image_line, session_line;
  REQUIRE(std::getline(file, image_line));
  REQUIRE(std::getline(file, session_line));
  CHECK(to_hex(image) == image_line);
  CHECK(to_hex(session) == session_line);
}

// docs/formats/store.md.
TEST_CASE("the state of a collection is byte for byte that of the golden file, and comes back") {
  CollectState state;
  ObjectKey rows, nodes;
  state.owner.bytes.fill(0x11);
  rows.domain.bytes.fill(0x22);
  rows.id.bytes.fill(0x33);
  nodes.domain.bytes.fill(0x44);
  nodes.id.bytes.fill(0x55);
  state.began_s = 1000;
  state.touched_before_s = 400;
  state.grace_s = 600;
  state.resumed = 3;
  state.phase = CollectorPhase::kFind;
  state.row_after = rows;
  state.mark.level = 2;
  state.mark.after = nodes;
  state.mark.nodes = 77;
  state.mark.runs.resize(Marker::kLevels);
  state.mark.runs[1] = {{0, 5}, {2, 9}};
  state.dead_level = Marker::kLevels;
  state.dead.resize(Marker::kLevels);
  state.dead[0] = {{4, 1}};
  for (std::size_t n = 0; n < state.figures.size(); ++n) state.figures[n] = 10 + n;
  const Bytes good = encode_collect_state(state);
  std::ifstream file(DIMS_GOLDEN_FOLDER "/collect_state_v1.hex");
  std::string line;
  REQUIRE(std::getline(file, line));
  CHECK(to_hex(good) == line);
  const auto back = decode_collect_state(good);
  REQUIRE(back.ok());
  CHECK(encode_collect_state(*back) == good);
  for (std::size_t n = 0; n < good.size(); ++n) {
    CHECK(!decode_collect_state(ByteView(good).first(n)).ok());
  }
  Bytes future = good;
  future[4] = 2;
  CHECK(code_of(decode_collect_state(future)) == ErrorCode::kUnsupported);
}

TEST_CASE("records that are cut, longer or of the future are refused") {
  SeededRandom random(test::seed());
  const Bytes good = encode_image(full_image(random));
  for (std::size_t n = 0; n < good.size(); ++n) {
    CHECK(!decode_image(ByteView(good).first(n)).ok());
  }
  Bytes longer = good;
  longer.push_back(0);
  CHECK(code_of(decode_image(longer)) == ErrorCode::kCorrupt);
  Bytes future = good;
  future[4] = 3;
  CHECK(code_of(decode_image(future)) == ErrorCode::kUnsupported);
  Bytes hostile = good;
  hostile[24] = hostile[25] = hostile[26] = hostile[27] = 0xff;  // the name's length
  CHECK(code_of(decode_image(hostile)) == ErrorCode::kCorrupt);
}

TEST_CASE("a damaged record stops the catalog from opening and is named") {
  test::CatalogFixture fixture;
  const auto image = fixture.make_image("disk");
  fixture.catalog.reset();
  const auto row = fixture.refs.get(image_key(image.id));
  REQUIRE(fixture.refs.put(image_key(image.id), as_bytes("rubbish"), (*row)->revision).ok());
  const auto opened = Catalog::open(fixture.objects, fixture.refs, GenerationId{}, fixture.clock,
                                    fixture.random, {});
  REQUIRE(code_of(opened) == ErrorCode::kCorrupt);
  CHECK(opened.error().message.find(image.id.hex()) != std::string::npos);
}

TEST_CASE("the journals of an image are bounded; the one used last stays") {
  test::CatalogFixture fixture;
  const auto image = fixture.make_image("disk");
  const auto lease = fixture.acquire(image);
  std::vector<contract::CommitOrder> orders;
  for (std::size_t i = 0; i < kJournalsMax + 3; ++i) {
    auto record = fixture.next_record(image, {});
    record.commit.journal = fixture.random.id<JournalId>();
    orders.push_back(fixture.order(record, lease));
    REQUIRE(fixture.catalog->commit(orders.back()).ok());
  }
  CHECK(fixture.catalog->commit(orders.back())->repeated);
  CHECK(fixture.catalog->commit(orders[3])->repeated);
  CHECK(code_of(fixture.catalog->commit(orders[0])) == ErrorCode::kConflict);
}
