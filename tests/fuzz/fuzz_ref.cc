// The server's ref records, as a broken store may give them back. The first byte says which: an
// image's, a session's, or any row of a small server's store (the second byte), which is then
// opened and read. Whatever stands there, it is refused or read, and nothing breaks.
#include <cstdlib>
#include <spdlog/spdlog.h>

#include "common/format/key_file.h"
#include "rdim-server/access/access_control.h"
#include "rdim-server/catalog/catalog.h"
#include "rdim-server/catalog/maintenance.h"
#include "rdim-server/stores/memory_stores.h"
#include "rdim-server/stores/meta_row.h"
#include "tests/contract/temp_folder.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/trust_seeds.h"

using namespace dims;

namespace {

constexpr std::uint8_t kImage = 0, kSession = 1, kRow = 2, kMeta = 3, kRetention = 4, kKinds = 5;
constexpr std::size_t kRowsMax = 1000;

template <typename Value>
Value must(Result<Value> result) {
  if (!result.ok()) std::abort();
  return std::move(result).value();
}
void must(const Status& status) {
  if (!status.ok()) std::abort();
}

class LogClock : public Clock {  // the time of SmallOrg's records
 public:
  std::chrono::nanoseconds boottime() override { return std::chrono::hours(5); }
  std::chrono::nanoseconds wall() override { return std::chrono::seconds(1000); }
};

// A server's whole store with a row of every kind, and what to ask for.
struct SmallStore {
  LogClock clock;
  SeededRandom random{1};
  test::TempFolder folder;
  fuzz::SmallOrg& org = fuzz::SmallOrg::get();
  ImageId image = org.image;
  VersionId version;
  contract::SessionRequest session;
  trust::UserId user = org.member.user;
  crypto::PublicKey session_key;
  std::vector<std::pair<std::string, Bytes>> rows;

  static SmallStore& get() {
    static SmallStore one;
    return one;
  }

  // Opens what stands there and asks for everything.
  void read(stores::MemoryRefStore& refs) {
    stores::MemoryObjectStore objects(clock);
    auto images = catalog::Catalog::open(objects, refs, GenerationId{}, clock, random, {});
    if (images.ok()) {
      catalog::Catalog& catalog = **images;
      (void)catalog.find_image("disk").ok();
      (void)catalog.get_version(image, {}, 0).ok();
      (void)catalog.get_version(image, version, 0).ok();
      (void)catalog.is_gone(version).ok();
      (void)catalog.retention_of(image).ok();
      (void)catalog.machine_of_session(image, session.session).ok();
      (void)catalog.open_session(session).ok();
      catalog::Maintenance maintenance(catalog, objects, refs, clock, upkeep());
      (void)maintenance.collection_status();
      (void)maintenance.last_check();
      (void)maintenance.last_scrub();
      auto check = maintenance.begin_check(true);
      while (check.ok()) {
        const auto more = (*check)->step();
        if (!more.ok() || !*more) break;
      }
    }
    auto control = access::AccessControl::open(refs, clock, random, std::nullopt);
    if (!control.ok()) return;
    access::People& people = (*control)->people();
    (void)people.user_record(user).ok();
    (void)people.grants(user, std::nullopt, {}).ok();
    (void)people.session(session_key).ok();
    (void)people.image(image);
    (void)people.images_of(user);
    (void)people.seen_user(user);
    (void)people.seen_machine(org.machine.machine);
    (void)(*control)->audit().read(~std::uint64_t{0}, 100).ok();
    if ((*control)->mode() != access::Mode::kOrganisation) std::abort();  // it has been one
    (void)(*control)->desk().login_record("nobody");
  }

 private:
  catalog::MaintenanceOptions upkeep() const {
    catalog::MaintenanceOptions options;
    options.space.fs = &io::posix_file_system();
    options.space.folder = folder.path;
    return options;
  }

  SmallStore() {
    spdlog::set_level(spdlog::level::off);
    stores::MemoryRefStore refs;
    fill(refs);
    for (auto& [key, value] : must(refs.list("", "", kRowsMax)))
      rows.emplace_back(key, std::move(value.value));
  }

  void fill(stores::MemoryRefStore& refs) {
    stores::MemoryObjectStore objects(clock);
    const auto catalog =
        must(catalog::Catalog::open(objects, refs, GenerationId{}, clock, random, {}));
    contract::ImageInfo info;
    info.id = image;
    info.name = "disk";
    info.image_bytes = kMiB;
    info.domain = org.domain;
    must(catalog->create_image(info));
    must(catalog->set_retention(image, catalog::RetentionPolicy{}));
    const format::KeyFile key = format::generate_key_file(random);
    format::VersionRecord record;
    record.image = image;
    record.image_bytes = info.image_bytes;
    record.tree = info.tree;
    record.sequence = 1;
    format::seal_root_key(record, key.image_key(image), {}, random);
    const auto lease = must(
        catalog->acquire_lease({image, random.id<SessionId>(), random.id<MachineId>(), "maker"}));
    version =
        must(
            catalog->commit(
                {image, lease.lease, lease.token, {}, format::encode_version(record, key.signing)}))
            .version;
    must(catalog->release_lease(image, lease));
    session.image = image;
    session.session = random.id<SessionId>();
    session.machine = org.machine.machine;
    session.machine_name = "pc";
    session.mode = "personal";
    session.base = version;
    must(catalog->open_session(session));
    must(refs.put("gone/" + version.hex(), Bytes(8, 1), 0));
    for (const char* name : {"maintenance/collection", "maintenance/scrub"}) {
      if (!must(refs.get(name))) must(refs.put(name, Bytes(64, 1), 0));
    }
    fill_people(refs);
  }

  void fill_people(stores::MemoryRefStore& refs) {
    const auto control = must(access::AccessControl::open(refs, clock, random, std::nullopt));
    must(control->book().begin(org.records, {}));
    access::People& people = control->people();
    const trust::NewUser carol =
        must(trust::make_user(org.org, random.id<trust::UserId>(), "carol",
                              as_bytes(std::string_view("words")), {}, random));
    user = carol.secrets.user;
    must(people.put_user(carol.record));
    const trust::ScopeId id = trust::scope_id(image);
    must(people.put_grants(
        {must(trust::make_grant(org.log->state(), trust::KeyScope::kImage, id, 1, org.secret,
                                org.member.user, org.admin.user, org.admin.sign))}));
    must(people.put_image(image, {user, {}}));
    must(people.saw_user(user, {1000, org.machine.machine, "", 0}));
    must(people.saw_machine(org.machine.machine, {1000, {}, "here", 1}));
    (void)control->desk().login_record("nobody");
    access::Caller caller;
    control->audit().add(caller, "login", image);
  }
};

void read_row(std::uint8_t which, ByteView value) {
  SmallStore& store = SmallStore::get();
  stores::MemoryRefStore refs;
  const std::size_t changed = which % store.rows.size();
  for (std::size_t i = 0; i < store.rows.size(); ++i) {
    const auto& [key, right] = store.rows[i];
    must(refs.put(key, i == changed ? value : ByteView(right), 0));
  }
  store.read(refs);
}

}  // namespace

std::vector<Bytes> fuzz_seeds() {
  catalog::ImageRecord image;
  image.id.bytes.fill(1);
  image.name = "disk";
  image.image_bytes = kGiB;
  image.domain.bytes.fill(2);
  image.base_domains.resize(1);
  image.journals.resize(2);
  image.lease.lease.bytes.fill(3);
  image.lease.machine_name = "pc";
  catalog::SessionRecord session;
  session.mode = "personal";
  session.machine_name = "pc";
  Bytes first = catalog::encode_image(image);
  Bytes second = catalog::encode_session(session);
  first.insert(first.begin(), kImage);
  second.insert(second.begin(), kSession);
  Bytes retention = catalog::encode_retention({});
  retention.insert(retention.begin(), kRetention);
  std::vector<Bytes> seeds{first, second, retention, Bytes(60, kMeta)};
  const auto& rows = SmallStore::get().rows;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    Bytes seed(2 + rows[i].second.size(), kRow);
    seed[1] = static_cast<std::uint8_t>(i);
    std::copy(rows[i].second.begin(), rows[i].second.end(), seed.begin() + 2);
    seeds.push_back(std::move(seed));
  }
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const ByteView bytes(data + 1, size - 1);
  switch (data[0] % kKinds) {
    case kImage: {
      const auto image = catalog::decode_image(bytes);
      if (image.ok() && !catalog::decode_image(catalog::encode_image(*image)).ok()) std::abort();
      break;
    }
    case kSession: {
      const auto session = catalog::decode_session(bytes);
      if (session.ok() && !catalog::decode_session(catalog::encode_session(*session)).ok())
        std::abort();
      break;
    }
    case kRow:
      read_row(data[1], {data + 2, size - 2});
      break;
    case kMeta:
      (void)stores::decode_meta(as_text(bytes));
      (void)stores::parse_row_key(as_text(bytes));
      break;
    default: {
      const auto policy = catalog::decode_retention(bytes);
      if (!policy.ok()) break;
      const auto again = catalog::parse_retention(catalog::text_of(*policy));
      if (!again.ok() || catalog::text_of(*again) != catalog::text_of(*policy)) std::abort();
    }
  }
  return 0;
}
