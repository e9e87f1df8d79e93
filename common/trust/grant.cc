#include "common/trust/grant.h"

#include "common/base/wire.h"
#include "common/crypto/hash.h"

namespace dims::trust {
namespace {

constexpr std::uint32_t kMagic = 0x31415247;  // "GRA1"
constexpr std::size_t kHeaderBytes = kGrantBytes - kGrantBoxBytes - Signature::kBytes;
static_assert(kHeaderBytes == 168);

Bytes encode_header(const Grant& g) {
  Bytes out;
  Writer w(out);
  w.u32(kMagic);
  w.u16(1);
  w.u8(static_cast<std::uint8_t>(g.scope));
  w.u8(0);
  w.id(g.org);
  w.id(g.id);
  w.u32(g.epoch);
  w.u32(0);
  w.id(g.recipient);
  w.id(g.recipient_key);
  w.id(g.granter);
  w.u64(g.position.seq);
  w.id(g.position.hash);
  return out;
}

Error untrusted(const std::string& what) {
  return make_error(ErrorCode::kUntrusted, "grant: " + what,
                    "the server handed out a grant that was not made for this; ask your "
                    "administrator to grant again");
}

bool may_grant(const OrgState& org, KeyScope scope, const ScopeId& id, const UserId& granter,
               std::uint64_t seq) {
  if (scope == KeyScope::kImage)
    return org.could_administer(granter, *ImageId::from_view(id.view()), seq);
  if (id.bytes == org.init().domain.bytes) return org.was_administrator(granter, seq);
  const User* const owner = org.user(granter);
  return owner != nullptr && owner->private_domain.bytes == id.bytes &&
         org.was_active(granter, seq);
}

}  // namespace

ScopeId scope_id(const DomainId& domain) { return *ScopeId::from_view(domain.view()); }
ScopeId scope_id(const ImageId& image) { return *ScopeId::from_view(image.view()); }

Digest epoch_commitment(KeyScope scope, const ScopeId& id, std::uint32_t epoch,
                        const Secret32& secret) {
  Bytes fields;
  Writer w(fields);
  w.u8(static_cast<std::uint8_t>(scope));
  w.id(id);
  w.u32(epoch);
  Digest out;
  out.bytes = crypto::prf(secret, "epoch-commitment", {fields}).bytes;
  return out;
}

Result<Bytes> make_grant(const OrgState& org, KeyScope scope, const ScopeId& id,
                         std::uint32_t epoch, const Secret32& secret, const UserId& recipient,
                         const UserId& granter, const crypto::SecretSigner& granter_key) {
  const User* const to = org.user(recipient);
  if (to == nullptr || to->status == UserStatus::kRemoved)
    return make_error(ErrorCode::kNotFound, "grant: the log knows no such recipient");
  const Epoch* const known = org.epoch(scope, id, epoch);
  if (known == nullptr) return make_error(ErrorCode::kNotFound, "grant: the log has no such epoch");
  if (known->body.commitment != epoch_commitment(scope, id, epoch, secret))
    return make_error(ErrorCode::kWrongKey, "grant: this is not the secret of that epoch");
  Grant grant{
      org.org(), scope,          id, epoch, recipient, crypto::sha256(to->keys.box_key.view()),
      granter,   org.position(), {}, {}};
  Bytes out = encode_header(grant);
  crypto::SecretBytes plain(64);
  const Digest header = crypto::sha256(out);
  std::memcpy(plain.mut().data(), header.bytes.data(), 32);
  std::memcpy(plain.mut().data() + 32, secret.bytes.data(), 32);
  grant.box = crypto::seal_box(to->keys.box_key, plain.view());
  Writer w(out);
  w.raw(grant.box);
  grant.signature = granter_key.sign("grant", org.org(), out);
  w.id(grant.signature);
  DIMS_TRY(check_grant(org, grant));
  return out;
}

Result<Grant> decode_grant(ByteView bytes) {
  Reader r(bytes);
  Grant g;
  if (bytes.size() != kGrantBytes || r.u32() != kMagic)
    return make_error(ErrorCode::kCorrupt, "grant: not a grant, or cut short");
  if (r.u16() != 1)
    return make_error(ErrorCode::kUnsupported, "grant of an unknown format", "update this program");
  const std::uint8_t scope = r.u8();
  if (scope < 1 || scope > 2 || r.u8() != 0)
    return make_error(ErrorCode::kCorrupt, "grant: of an unknown scope");
  g.scope = static_cast<KeyScope>(scope);
  g.org = r.id<OrgId>();
  g.id = r.id<ScopeId>();
  g.epoch = r.u32();
  const std::uint32_t zero = r.u32();
  g.recipient = r.id<UserId>();
  g.recipient_key = r.id<Digest>();
  g.granter = r.id<UserId>();
  g.position.seq = r.u64();
  g.position.hash = r.id<Digest>();
  const ByteView box = r.raw(kGrantBoxBytes);
  g.box.assign(box.begin(), box.end());
  g.signature = r.id<Signature>();
  if (zero != 0 || !r.at_end())
    return make_error(ErrorCode::kCorrupt, "grant: reserved bytes are not zero");
  return g;
}

Status check_grant(const OrgState& org, const Grant& g) {
  if (g.org != org.org()) return untrusted("it is another organisation's");
  if (g.position.seq > org.position().seq) {
    return make_error(ErrorCode::kOtherHistory, "grant: made on a log that is ahead of this one",
                      "read the log and try again");
  }
  if (org.hash_at(g.position.seq) != g.position.hash)
    return make_error(ErrorCode::kOtherHistory, "grant: made on another log than this one",
                      "the server shows two histories; ask your administrator");
  const Epoch* const epoch = org.epoch(g.scope, g.id, g.epoch);
  if (epoch == nullptr) return make_error(ErrorCode::kNotFound, "grant: the log has no such epoch");
  if (g.position.seq < epoch->since_seq)
    return untrusted("it is older than the epoch that it is for");
  // What he has been granted he may seal anew for himself: the commitment shows that he has it.
  const bool to_himself = g.granter == g.recipient && org.was_active(g.granter, g.position.seq);
  if (!to_himself && !may_grant(org, g.scope, g.id, g.granter, g.position.seq))
    return untrusted("whoever made it may not grant this");
  const auto keys = org.keys_at(g.granter, g.position.seq);
  Bytes signed_part = encode_header(g);
  signed_part.insert(signed_part.end(), g.box.begin(), g.box.end());
  if (!keys || !crypto::verify(keys->sign_key, "grant", g.org, signed_part, g.signature))
    return untrusted("its signature is wrong");
  return ok_status();
}

Result<crypto::SecretKey> open_grant(const OrgState& org, ByteView bytes, const UserId& reader,
                                     const crypto::BoxKey& key) {
  const auto grant = decode_grant(bytes);
  if (!grant.ok()) return grant.error();
  if (grant->recipient != reader || grant->recipient_key != crypto::sha256(key.public_key.view()))
    return untrusted("it is for another recipient");
  DIMS_TRY(check_grant(org, *grant));
  const auto plain = crypto::open_box(key, grant->box);
  if (!plain || plain->size() != 64)
    return make_error(ErrorCode::kWrongKey, "grant: its box does not open");
  if (!crypto::equal_constant_time(plain->view().first(32),
                                   crypto::sha256(encode_header(*grant)).view()))
    return untrusted("its box belongs to another grant");
  auto secret = *crypto::SecretKey::from_view(plain->view().subspan(32));
  const Epoch* const epoch = org.epoch(grant->scope, grant->id, grant->epoch);
  if (epoch->body.commitment !=
      epoch_commitment(grant->scope, grant->id, grant->epoch, secret.key()))
    return untrusted("its secret is not the one that the log announced");
  return secret;
}

}  // namespace dims::trust
