// OfflineStore: the file.
#include "common/base/wire.h"
#include "common/crypto/aead.h"
#include "common/crypto/hash.h"
#include "common/trust/offline_store.h"

namespace dims::trust {
namespace {

constexpr std::uint32_t kMagic = 0x3146464f;  // "OFF1"
constexpr std::uint32_t kFormat = 2;
constexpr std::size_t kHeadBytes = 8;
constexpr std::size_t kEntriesMax = 64;
constexpr std::size_t kWrappedBytes = 32 + 112 + crypto::kWrapOverheadBytes;

Error corrupt(const std::string& what) {
  return make_error(ErrorCode::kCorrupt, "offline logins: " + what,
                    "log in with the server once; the file is made anew");
}

template <typename Delay>
void put_delay(Writer& w, const Delay& delay) {
  w.u32(delay.failures);
  w.id(delay.boot);
  w.u64(delay.not_before_ns);
}
template <typename Delay>
void take_delay(Reader& r, Delay& delay) {
  delay.failures = r.u32();
  delay.boot = r.id<BootId>();
  delay.not_before_ns = r.u64();
}

}  // namespace

crypto::SecretKey OfflineStore::file_key() const {
  return crypto::secret_prf(env_.machine_secret.key(), "offline-store",
                            {env_.org.view(), env_.machine.view()});
}

std::size_t OfflineStore::bucket_of(std::string_view name) const {
  const Secret32 hash =
      crypto::prf(env_.machine_secret.key(), "offline-bucket", {env_.org.view(), as_bytes(name)});
  return hash.bytes[0] % kOfflineBuckets;
}

Bytes OfflineStore::file_ad(std::uint32_t format) const {
  Bytes ad;
  Writer w(ad);
  w.raw(as_bytes(format == 1 ? "dims/offline-store/1" : "dims/offline-store/2"));
  w.id(env_.org);
  w.id(env_.machine);
  return ad;
}

crypto::SecretKey OfflineStore::entry_key(const crypto::SecretKey& wrap) const {
  return crypto::secret_prf(env_.machine_secret.key(), "wrap", {wrap.view()});
}

Bytes OfflineStore::entry_ad(const Entry& entry) const {
  Bytes ad;
  Writer w(ad);
  w.raw(as_bytes("dims/offline-user/1"));
  w.id(env_.org);
  w.id(env_.machine);
  w.id(entry.user);
  w.string(as_bytes(entry.name));
  w.u32(entry.parameters.memory_kib);
  w.u32(entry.parameters.passes);
  w.id(entry.salt);
  return ad;
}

Bytes OfflineStore::encode(const State& state) {
  Bytes out;
  Writer w(out);
  w.id(state.boot);
  w.u64(state.boottime_ns);
  w.u64(state.wall_unix_s);
  for (const Delay& bucket : state.buckets) put_delay(w, bucket);
  w.u32(static_cast<std::uint32_t>(state.entries.size()));
  for (const Entry& e : state.entries) {
    w.id(e.user);
    w.string(as_bytes(e.name));
    w.u32(e.parameters.memory_kib);
    w.u32(e.parameters.passes);
    w.id(e.salt);
    w.u64(e.last_online_unix_s);
    put_delay(w, e.delay);
    w.string(e.wrapped);
  }
  return out;
}

Result<OfflineStore::State> OfflineStore::decode(ByteView bytes, std::uint32_t format) {
  Reader r(bytes);
  State state;
  state.boot = r.id<BootId>();
  state.boottime_ns = r.u64();
  state.wall_unix_s = r.u64();
  take_delay(r, state.buckets[0]);
  // One delay for all names that nobody had: it stays theirs, and is everybody's.
  if (format == 1) state.buckets.fill(state.buckets[0]);
  for (std::size_t i = 1; format != 1 && i < kOfflineBuckets; ++i) take_delay(r, state.buckets[i]);
  const std::uint32_t count = r.u32();
  if (count > kEntriesMax) return corrupt("too many users");
  for (std::uint32_t i = 0; i < count && r.ok(); ++i) {
    Entry e;
    e.user = r.id<UserId>();
    e.name = std::string(as_text(r.string()));
    e.parameters.memory_kib = r.u32();
    e.parameters.passes = r.u32();
    e.salt = r.id<crypto::Salt>();
    e.last_online_unix_s = r.u64();
    take_delay(r, e.delay);
    const ByteView wrapped = r.string();
    e.wrapped.assign(wrapped.begin(), wrapped.end());
    if (!is_valid_name(e.name) || e.wrapped.size() != kWrappedBytes)
      return corrupt("a user's entry is malformed");
    state.entries.push_back(std::move(e));
  }
  if (!r.at_end()) return corrupt("it has a wrong length");
  return state;
}

Result<OfflineStore::State> OfflineStore::load() {
  const auto bytes = io::read_file(env_.fs, env_.path, kOfflineStoreBytesMax);
  if (!bytes.ok()) {
    if (bytes.error().code == ErrorCode::kNotFound) return State{};
    return bytes.error().with_context("offline logins");
  }
  Reader r(*bytes);
  if (r.u32() != kMagic) return corrupt("this is not such a file: " + env_.path);
  const std::uint32_t format = r.u32();
  if (r.ok() && format != 1 && format != kFormat)
    return make_error(ErrorCode::kUnsupported, "offline logins of an unknown format",
                      "update this program");
  if (!r.ok()) return corrupt("it is cut short: " + env_.path);
  const auto plain =
      crypto::unwrap(file_key().key(), file_ad(format), ByteView(*bytes).subspan(kHeadBytes));
  if (!plain)
    return make_error(ErrorCode::kWrongKey,
                      "offline logins: " + env_.path + " is damaged, or another machine's",
                      "log in with the server once more");
  return decode(*plain, format);
}

Status OfflineStore::save(State& state) {
  Bytes out;
  Writer w(out);
  w.u32(kMagic);
  w.u32(kFormat);
  w.raw(crypto::wrap(file_key().key(), file_ad(kFormat), encode(state), env_.random));
  return io::replace_file(env_.fs, env_.path, out);
}

}  // namespace dims::trust
