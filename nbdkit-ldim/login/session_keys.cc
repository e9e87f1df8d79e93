#include "nbdkit-ldim/login/session_keys.h"

#include <mutex>

#include "common/base/wire.h"
#include "common/crypto/hash.h"

namespace dims::ldim {
namespace {

constexpr const char* kRenew = ": log in again with 'ldim renew'";
constexpr const char* kStays = "; until then nothing is sent, what is written stays in the journal";

// Log and certificates of one process; asks the server for what it lacks.
class Standing {
 public:
  Standing(MachineFolder folder, trust::OrgLog log, std::shared_ptr<client::LoginToken> token,
           const SessionKeys& session, const trust::UserId& user)
      : folder_(std::move(folder)),
        token_(std::move(token)),
        image_(session.image),
        own_(session.keys.signing.public_key),
        user_(user),
        log_(std::make_shared<const trust::OrgLog>(std::move(log))) {}

  Status check(const format::VersionRecord& version) {
    const std::lock_guard lock(mutex_);
    if (!check_) make_check();
    const Status known = check_(version);
    if (known.ok()) return known;
    // It may be by somebody, or of an epoch, that is newer than the log that is known here.
    if (!read_log().ok()) return known;
    make_check();
    return check_(version);
  }

  std::uint64_t head_floor(const ImageId& image) {
    const std::lock_guard lock(mutex_);
    // A branch has numbers of its own.
    return image == image_ ? trust::head_floor(log_->state(), image_) : 0;
  }

  // Made by this user, on whichever machine he was.
  Status check_own(const format::VersionRecord& version) {
    if (version.signer == own_) return ok_status();
    DIMS_TRY(check(version));
    const std::lock_guard lock(mutex_);
    DIMS_ASSIGN(const Bytes bytes, find(image_, version.signer));
    DIMS_ASSIGN(const trust::SessionCertificate certificate, trust::decode_session(bytes));
    if (certificate.user == user_) return ok_status();
    return make_error(ErrorCode::kUntrusted,
                      "version " + std::to_string(version.sequence) + " is somebody else's");
  }

 private:
  void make_check() {
    check_ = client::signer_check(
        log_, image_,
        [this](const ImageId& image, const trust::PublicKey& key) { return find(image, key); },
        own_);
  }

  Result<client::AccessClient*> access() {
    if (!access_) {
      const client::LoginPlace place = folder_.place();
      DIMS_ASSIGN(access_,
                  client::AccessClient::connect(place.server, place.known_servers, token_));
    }
    return access_.get();
  }

  Result<Bytes> find(const ImageId& image, const trust::PublicKey& key) {
    auto kept = folder_.certificate(key);
    if (kept.ok() && is_good(*kept, key)) return kept;
    DIMS_ASSIGN(client::AccessClient* const server, access());
    DIMS_ASSIGN(Bytes bytes, client::certificates_from(*server)(image, key));
    // What is kept is asked for no more.
    if (is_good(bytes, key)) DIMS_TRY(folder_.keep_certificate(key, bytes));
    return bytes;
  }
  bool is_good(ByteView bytes, const trust::PublicKey& key) const {
    const auto certificate = trust::decode_session(bytes);
    return certificate.ok() && certificate->session_key == key &&
           trust::check_session(log_->state(), *certificate).ok();
  }

  Status read_log() {
    DIMS_ASSIGN(client::AccessClient* const server, access());
    DIMS_ASSIGN(trust::OrgLog fresh,
                client::read_log(*server, log_->state().org(), client::records_of(*log_)));
    DIMS_TRY(folder_.keep_log(fresh));
    log_ = std::make_shared<const trust::OrgLog>(std::move(fresh));
    return ok_status();
  }

  MachineFolder folder_;
  const std::shared_ptr<client::LoginToken> token_;
  const ImageId image_;
  const trust::PublicKey own_;
  const trust::UserId user_;
  std::mutex mutex_;
  std::shared_ptr<const trust::OrgLog> log_;
  std::unique_ptr<client::AccessClient> access_;
  std::function<Status(const format::VersionRecord&)> check_;
};

}  // namespace

Bytes encode_session_keys(const SessionKeys& session) {
  Bytes out;
  out.reserve(8192);
  Writer w(out);
  const format::KeyFile& keys = session.keys;
  w.id(keys.org);
  w.id(keys.domain);
  w.raw(keys.domain_secret.view());
  w.raw(keys.signing.seed.view());
  w.raw(keys.member->local.view());
  w.u32(keys.member->domain_epoch);
  w.id(keys.member->machine);
  w.u32(static_cast<std::uint32_t>(keys.member->image.size()));
  for (const auto& [epoch, secret] : keys.member->image) {
    w.u32(epoch);
    w.raw(secret.view());
  }
  w.id(session.image);
  w.string(session.certificate);
  w.u8(session.offline ? 1 : 0);
  return out;
}

Result<SessionKeys> decode_session_keys(ByteView bytes) {
  Reader r(bytes);
  SessionKeys out;
  auto member = std::make_shared<format::MemberKeys>();
  out.keys.org = r.id<OrgId>();
  out.keys.domain = r.id<DomainId>();
  out.keys.domain_secret = r.id<Secret32>();
  Secret32 seed = r.id<Secret32>();
  out.keys.signing = crypto::signing_key_from_seed(seed);
  crypto::wipe(seed.mut());
  member->local = r.id<Secret32>();
  member->domain_epoch = r.u32();
  member->machine = r.id<MachineId>();
  const std::uint32_t epochs = r.u32();
  for (std::uint32_t i = 0; i < epochs && r.ok(); ++i) {
    const std::uint32_t epoch = r.u32();
    member->image[epoch] = r.id<Secret32>();
  }
  out.image = r.id<ImageId>();
  const ByteView certificate = r.string();
  out.certificate.assign(certificate.begin(), certificate.end());
  out.offline = r.u8() == 1;
  if (!r.at_end() || member->image.empty())
    return make_error(ErrorCode::kCorrupt, "the login's answer is cut short");
  out.keys.member = std::move(member);
  return out;
}

std::shared_ptr<client::LoginToken> session_token(const MachineFolder& folder,
                                                  const SessionKeys& keys) {
  return std::make_shared<client::LoginToken>(
      client::machine_login(folder.place(), keys.certificate));
}

Result<format::KeyFile> standing_keys(MachineFolder folder, const SessionKeys& session,
                                      std::shared_ptr<client::LoginToken> token) {
  DIMS_ASSIGN(trust::OrgLog log, folder.log());
  DIMS_ASSIGN(const trust::SessionCertificate mine, trust::decode_session(session.certificate));
  auto standing = std::make_shared<Standing>(std::move(folder), std::move(log), std::move(token),
                                             session, mine.user);
  auto member = std::make_shared<format::MemberKeys>(*session.keys.member);
  member->check_signer = [standing](const format::VersionRecord& version) {
    return standing->check(version);
  };
  member->check_own = [standing](const format::VersionRecord& version) {
    return standing->check_own(version);
  };
  member->head_floor = [standing](const ImageId& image) { return standing->head_floor(image); };
  format::KeyFile keys = session.keys;
  keys.member = std::move(member);
  return keys;
}

void SessionStanding::renewed(const SessionKeys& session) {
  const std::lock_guard lock(mutex_);
  // What does not decode is of no use anywhere, and the server says so.
  if (const auto certificate = trust::decode_session(session.certificate); certificate.ok())
    certificate_ = *certificate;
  image_ = session.image;
  domain_ = session.keys.domain;
  image_epoch_ = session.keys.image_epoch();
  domain_epoch_ = session.keys.member->domain_epoch;
  refused_.clear();
}

void SessionStanding::log_is(const trust::OrgState& org) {
  const std::lock_guard lock(mutex_);
  const auto newest = [&](trust::KeyScope scope, const trust::ScopeId& id) {
    const trust::Epoch* const epoch = org.epoch(scope, id);
    return epoch == nullptr ? 0 : epoch->body.epoch;
  };
  newest_image_epoch_ = newest(trust::KeyScope::kImage, trust::scope_id(image_));
  newest_domain_epoch_ = newest(trust::KeyScope::kDomain, trust::scope_id(domain_));
  refused_.clear();
  if (certificate_.images.empty()) return;
  // Its time is looked at when somebody asks.
  const Status use = trust::check_session_use(
      org, certificate_,
      {certificate_.machine, image_, certificate_.images.front().access, certificate_.from_unix_s});
  if (!use.ok() && use.error().code != ErrorCode::kOtherHistory) refused_ = use.error().message;
}

std::string SessionStanding::trouble() {
  const std::lock_guard lock(mutex_);
  if (!refused_.empty()) return refused_ + kRenew + kStays;
  if (newest_image_epoch_ > image_epoch_)
    return std::string("the image has new keys, because somebody lost a right") + kRenew + kStays;
  if (client::unix_now_s() > certificate_.to_unix_s)
    return std::string("the login's time is over") + kRenew + kStays;
  if (domain_epoch_ != 0 && newest_domain_epoch_ > domain_epoch_) {
    return std::string("the domain has new keys, because somebody lost a right") + kRenew +
           "; until then what is sent is sealed with the old ones";
  }
  return {};
}

}  // namespace dims::ldim
