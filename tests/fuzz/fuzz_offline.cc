// The file of offline logins: damaged on disk (first byte even), and, sealed with the right key,
// with any content (odd).
#include "common/base/wire.h"
#include "common/io/memory_file.h"
#include "common/trust/offline_store.h"
#include "tests/fuzz/trust_seeds.h"

using namespace dims;
using namespace dims::fuzz;
using namespace dims::trust;

namespace {

// docs/formats/offline-store.md, a second time.
struct Seal {
  crypto::SecretKey key;
  Bytes ad;
  Seal() {
    SmallOrg& org = SmallOrg::get();
    key = crypto::secret_prf(org.machine.secret.key(), "offline-store",
                             {org.org.view(), org.machine.machine.view()});
    Writer w(ad);
    w.raw(as_bytes("dims/offline-store/2"));
    w.id(org.org);
    w.id(org.machine.machine);
  }
};
const Seal& seal() {
  static const Seal one;
  return one;
}

OfflineStore store(io::FileSystem& fs) {
  SmallOrg& org = SmallOrg::get();
  static ManualClock clock;
  return OfflineStore(
      {fs, "/offline", org.org, org.machine.machine, org.machine.secret, clock, {}, org.random});
}

}  // namespace

std::vector<Bytes> fuzz_seeds() {
  SmallOrg& org = SmallOrg::get();
  io::MemoryFileSystem fs;
  const PassphraseKeys keys{crypto::SecretKey::random(org.random), org.signer()};
  UserRecord record;
  for (const auto* name : {"admin", "member"}) {
    record.name = name;
    const UserSecrets& user = record.name == "admin" ? org.admin : org.member;
    if (!store(fs).remember(org.log->state(), record, keys, user).ok()) std::abort();
  }
  const Bytes file = *io::read_file(fs, "/offline", kOfflineStoreBytesMax);
  const auto plain = crypto::unwrap(seal().key.key(), seal().ad, ByteView(file).subspan(8));
  return {with_kind(0, file), with_kind(1, *plain)};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const ByteView rest(data + 1, size - 1);
  Bytes file(rest.begin(), rest.end());
  if (data[0] % 2 == 1) {
    file.clear();
    Writer w(file);
    w.u32(0x3146464f);
    w.u32(2);
    w.raw(crypto::wrap(seal().key.key(), seal().ad, rest, SmallOrg::get().random));
  }
  io::MemoryFileSystem fs;
  if (!io::replace_file(fs, "/offline", file).ok()) return 0;
  auto opened = store(fs);
  const auto users = opened.list();
  if (!users.ok()) return 0;
  (void)opened.wait_s("member");
  if (!opened.forget(SmallOrg::get().member.user).ok()) std::abort();
  if (!opened.list().ok()) std::abort();
  return 0;
}
