#include "common/trust/bodies.h"

#include "common/base/wire.h"

namespace dims::trust {
namespace {

// One list of fields a kind serves both directions: Out writes them, In reads and checks them.
struct Out {
  Bytes& bytes;
  Writer w{bytes};
  bool ok = true;

  template <typename Tag, std::size_t N>
  void field(const Id<Tag, N>& value) {
    w.id(value);
  }
  void field(const std::string& text) { w.string(as_bytes(text)); }
  void field(bool value) { w.u8(value ? 1 : 0); }
  void field(std::uint32_t value) { w.u32(value); }
  void field(std::uint64_t value) { w.u64(value); }
  template <typename Enum>
  void choice(const Enum& value, std::uint8_t, std::uint8_t) {
    w.u8(static_cast<std::uint8_t>(value));
  }
};

struct In {
  Reader r;
  bool ok = true;

  template <typename Tag, std::size_t N>
  void field(Id<Tag, N>& value) {
    value = r.id<Id<Tag, N>>();
  }
  void field(std::string& text) {
    const ByteView bytes = r.string();
    if (bytes.size() > kNameBytesMax) {
      ok = false;
      return;
    }
    text = std::string(as_text(bytes));
    if (!text.empty() && !is_valid_name(text)) ok = false;
  }
  void field(bool& value) {
    const std::uint8_t byte = r.u8();
    if (byte > 1) ok = false;
    value = byte == 1;
  }
  void field(std::uint32_t& value) { value = r.u32(); }
  void field(std::uint64_t& value) { value = r.u64(); }
  template <typename Enum>
  void choice(Enum& value, std::uint8_t low, std::uint8_t high) {
    const std::uint8_t byte = r.u8();
    if (byte < low || byte > high) ok = false;
    value = static_cast<Enum>(byte);
  }
};

template <typename Io, typename Keys>
void keys_fields(Io& io, Keys& keys) {
  io.field(keys.sign_key);
  io.field(keys.box_key);
}
template <typename Io, typename T>
void fields(Io& io, T& b, const OrgInit*) {
  io.field(b.root_key);
  io.field(b.domain);
  io.field(b.name);
}
template <typename Io, typename T>
void fields(Io& io, T& b, const UserCert*) {
  io.field(b.user);
  io.field(b.name);
  io.choice(b.role, 1, 3);
  keys_fields(io, b.keys);
  io.field(b.private_domain);
  io.field(b.proof);
}
template <typename Io, typename T>
void fields(Io& io, T& b, const UserState*) {
  io.field(b.user);
  io.choice(b.status, 1, 3);
  io.choice(b.role, 1, 3);
}
template <typename Io, typename T>
void fields(Io& io, T& b, const KeyChange*) {
  io.field(b.user);
  keys_fields(io, b.keys);
  io.field(b.proof);
}
template <typename Io, typename T>
void fields(Io& io, T& b, const MachineCert*) {
  io.field(b.machine);
  io.field(b.name);
  io.field(b.sign_key);
  io.field(b.proof);
}
template <typename Io, typename T>
void fields(Io& io, T& b, const MachineRevoke*) {
  io.field(b.machine);
}
template <typename Io, typename T>
void fields(Io& io, T& b, const MachineWipe*) {
  io.field(b.machine);
  io.field(b.spare_unsent);
}
template <typename Io, typename T>
void fields(Io& io, T& b, const JoinKey*) {
  io.field(b.key);
  io.field(b.for_machine);
  io.field(b.name);
  io.choice(b.role, 1, 3);
  io.field(b.user);
  io.field(b.expires_unix_s);
}
template <typename Io, typename T>
void fields(Io& io, T& b, const JoinCancel*) {
  io.field(b.key);
}
template <typename Io, typename T>
void fields(Io& io, T& b, const ImageAcl*) {
  io.field(b.image);
  io.field(b.user);
  io.choice(b.access, 0, 3);
}
template <typename Io, typename T>
void fields(Io& io, T& b, const KeyEpoch*) {
  io.choice(b.scope, 1, 2);
  io.field(b.id);
  io.field(b.epoch);
  io.field(b.commitment);
  io.field(b.last_sequence);
  io.field(b.last_version);
}
template <typename Io, typename T>
void fields(Io& io, T& b, const Policy*) {
  io.field(b.offline_login);
  io.field(b.offline_users);
  io.field(b.offline_max_age_s);
  io.field(b.session_max_s);
  io.field(b.escrow);
}
template <typename Io, typename T>
void fields(Io& io, T& b, const Quota*) {
  io.field(b.user);
  io.field(b.bytes);
  io.field(b.images);
  io.field(b.requests_per_minute);
}

template <typename T>
Bytes encode_one(const T& body) {
  Bytes bytes;
  Out out{bytes};
  fields(out, body, static_cast<const T*>(nullptr));
  return bytes;
}

template <typename T>
Bytes unsigned_part(T body) {
  body.proof = {};
  return encode_one(body);
}

template <std::size_t I = 0>
Result<Body> decode_index(std::size_t index, ByteView bytes) {
  if constexpr (I < std::variant_size_v<Body>) {
    if (index != I) return decode_index<I + 1>(index, bytes);
    using T = std::variant_alternative_t<I, Body>;
    T body{};
    In in{Reader(bytes)};
    fields(in, body, static_cast<const T*>(nullptr));
    if (!in.ok || !in.r.at_end()) {
      return make_error(ErrorCode::kCorrupt,
                        "log record: its " +
                            std::string(record_kind_name(static_cast<RecordKind>(index + 1))) +
                            " body is malformed");
    }
    return Body(std::move(body));
  } else {
    return make_error(ErrorCode::kUnsupported,
                      "log record of unknown kind " + std::to_string(index + 1),
                      "update this program");
  }
}

template <typename T>
void prove_one(T& body, std::string_view type, const OrgId& org, const crypto::SecretSigner& key) {
  body.proof = key.sign(type, org, unsigned_part(body));
}

template <typename T>
Status check_one(const T& body, const PublicKey& key, std::string_view type, const OrgId& org) {
  if (crypto::verify(key, type, org, unsigned_part(body), body.proof)) return ok_status();
  return make_error(ErrorCode::kUntrusted, "log record: its new key is not proved by its owner (" +
                                               std::string(type) + ")");
}

}  // namespace

std::string_view record_kind_name(RecordKind kind) {
  static constexpr std::string_view kNames[] = {
      "org-init",       "user-cert",    "user-state", "key-change",  "machine-cert",
      "machine-revoke", "machine-wipe", "join-key",   "join-cancel", "image-acl",
      "key-epoch",      "policy",       "quota"};
  static_assert(std::size(kNames) == std::variant_size_v<Body>);
  const auto index = static_cast<std::size_t>(kind) - 1;
  return index < std::size(kNames) ? kNames[index] : "?";
}

RecordKind kind_of(const Body& body) { return static_cast<RecordKind>(body.index() + 1); }

Bytes encode_body(const Body& body) {
  return std::visit([](const auto& one) { return encode_one(one); }, body);
}

Result<Body> decode_body(RecordKind kind, ByteView bytes) {
  return decode_index(static_cast<std::size_t>(kind) - 1, bytes);
}

void prove(UserCert& cert, const OrgId& org, const crypto::SecretSigner& key) {
  prove_one(cert, "user-proof", org, key);
}
void prove(KeyChange& change, const OrgId& org, const crypto::SecretSigner& key) {
  prove_one(change, "key-proof", org, key);
}
void prove(MachineCert& cert, const OrgId& org, const crypto::SecretSigner& key) {
  prove_one(cert, "machine-proof", org, key);
}
Status check_proof(const UserCert& cert, const OrgId& org) {
  return check_one(cert, cert.keys.sign_key, "user-proof", org);
}
Status check_proof(const KeyChange& change, const OrgId& org) {
  return check_one(change, change.keys.sign_key, "key-proof", org);
}
Status check_proof(const MachineCert& cert, const OrgId& org) {
  return check_one(cert, cert.sign_key, "machine-proof", org);
}

}  // namespace dims::trust
