#include "common/trust/machine_file.h"

#include <sys/stat.h>

#include "common/base/wire.h"
#include "common/crypto/aead.h"
#include "common/crypto/hash.h"
#include "common/io/errno_map.h"
#include "common/io/file.h"
#include "common/io/private_file.h"

namespace dims::trust {
namespace {

constexpr std::uint32_t kMagic = 0x3148434d;  // "MCH1"
constexpr std::size_t kHeadBytes = 8;         // magic, format, sealed
constexpr std::size_t kCheckBytes = 16;
constexpr std::size_t kMaxBytes = 4096;

Error corrupt(const std::string& what) {
  return make_error(ErrorCode::kCorrupt, "machine file: " + what, "enroll this machine again");
}

}  // namespace

MachineCert MachineFile::certificate() const {
  MachineCert cert{machine, name, sign.public_key, {}};
  prove(cert, org, sign);
  return cert;
}

MachineFile make_machine(const OrgId& org, const std::string& name, Random& random) {
  MachineFile m;
  m.org = org;
  m.machine = random.id<MachineId>();
  m.name = name;
  m.sign = crypto::SecretSigner::from_seed(crypto::SecretKey::random(random));
  m.secret = crypto::SecretKey::random(random);
  return m;
}

crypto::SecretBytes encode_machine(const MachineFile& m, const Secret32* seal, Random& random) {
  Bytes head;
  Writer hw(head);
  hw.u32(kMagic);
  hw.u16(1);
  hw.u16(seal != nullptr ? 1 : 0);
  Bytes body;
  body.reserve(kMaxBytes);  // so that no copy of the keys is left behind by growing
  Writer w(body);
  w.id(m.org);
  w.id(m.machine);
  w.string(as_bytes(m.name));
  w.string(as_bytes(m.server_address));
  w.id(m.server);
  w.raw(m.sign.seed.view());
  w.raw(m.secret.view());
  w.u64(m.obeyed_wipe_seq);
  Bytes out = head;
  if (seal != nullptr) {
    const Bytes sealed = crypto::wrap(*seal, head, body, random);
    out.insert(out.end(), sealed.begin(), sealed.end());
  } else {
    out.reserve(kMaxBytes);
    out.insert(out.end(), body.begin(), body.end());
    const Digest check = crypto::sha256(out);
    out.insert(out.end(), check.bytes.begin(), check.bytes.begin() + kCheckBytes);
  }
  crypto::wipe(body);
  return crypto::SecretBytes::take(out);
}

Result<MachineFile> decode_machine(ByteView bytes, const Secret32* seal) {
  Reader head(bytes);
  if (bytes.size() > kMaxBytes || head.u32() != kMagic)
    return corrupt("this is not a machine file");
  if (head.u16() != 1)
    return make_error(ErrorCode::kUnsupported, "machine file of an unknown format",
                      "update this program");
  const std::uint16_t sealed = head.u16();
  if (!head.ok() || sealed > 1) return corrupt("malformed");
  crypto::SecretBytes opened;
  ByteView body = bytes.subspan(kHeadBytes);
  if (sealed == 1) {
    auto plain = seal == nullptr ? std::nullopt
                                 : crypto::unwrap_secret(*seal, bytes.first(kHeadBytes), body);
    if (!plain)
      return make_error(ErrorCode::kWrongKey,
                        "machine file: it is sealed, and the key is missing "
                        "or another one",
                        "start where its TPM or credential is, or enroll again");
    opened = std::move(*plain);
    body = opened.view();
  } else {
    if (body.size() < kCheckBytes) return corrupt("cut short");
    body = body.first(body.size() - kCheckBytes);
    const Digest check = crypto::sha256(bytes.first(bytes.size() - kCheckBytes));
    if (!crypto::equal_constant_time(check.view().first(kCheckBytes), bytes.last(kCheckBytes)))
      return corrupt("its check sum is wrong");
  }
  Reader r(body);
  MachineFile m;
  m.org = r.id<OrgId>();
  m.machine = r.id<MachineId>();
  m.name = std::string(as_text(r.string()));
  m.server_address = std::string(as_text(r.string()));
  m.server = r.id<Digest>();
  const ByteView seed = r.raw(32);
  const ByteView secret = r.raw(32);
  m.obeyed_wipe_seq = r.u64();
  if (!r.at_end() || !is_valid_name(m.name)) return corrupt("malformed");
  m.sign = crypto::SecretSigner::from_seed(*crypto::SecretKey::from_view(seed));
  m.secret = *crypto::SecretKey::from_view(secret);
  return m;
}

Status save_machine(const std::string& path, const MachineFile& machine, const Secret32* seal,
                    Random& random) {
  return io::replace_file(io::posix_file_system(), path,
                          encode_machine(machine, seal, random).view());
}

Result<MachineFile> load_machine(const std::string& path, const Secret32* seal) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) {
    Error error = io::errno_error(errno, "cannot read machine file", path);
    if (error.code == ErrorCode::kNotFound)
      error.hint = "enroll this machine with 'ldim enroll JOIN-LINE'";
    return error;
  }
  DIMS_TRY(io::check_private(path, "machine file"));
  auto bytes = io::read_file(io::posix_file_system(), path, kMaxBytes);
  if (!bytes.ok()) return bytes.error().with_context("machine file");
  const auto secret = crypto::SecretBytes::take(*bytes);
  auto machine = decode_machine(secret.view(), seal);
  if (!machine.ok()) return machine.error().with_context(path);
  return machine;
}

std::optional<Wipe> wipe_due(const OrgState& org, const MachineFile& machine) {
  const Machine* const known = org.machine(machine.machine);
  if (known == nullptr || !known->wipe || known->wipe->seq <= machine.obeyed_wipe_seq)
    return std::nullopt;
  return known->wipe;
}

}  // namespace dims::trust
