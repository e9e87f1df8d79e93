#include "nbdkit-ldim/login/login.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "common/client/client.h"
#include "common/io/child.h"
#include "common/trust/grant.h"
#include "nbdkit-ldim/login/orders.h"

namespace dims::ldim {
namespace {

using trust::Access;
using trust::KeyScope;

bool is_away(const Error& error) {
  return error.code == ErrorCode::kUnavailable || error.code == ErrorCode::kDeadlineExceeded;
}

// Grants of the server, kept on their way if they are good. Those that were kept before stay: a
// server that does not give them any more takes nothing away.
client::Grants keeping_grants(MachineFolder& folder, client::Member& member) {
  return
      [&folder, &member](KeyScope scope, const trust::ScopeId& id) -> Result<std::vector<Bytes>> {
        const trust::UserId& user = member.secrets.user;
        DIMS_ASSIGN(std::vector<Bytes> fresh, member.access->grants(scope, id.view(), {}));
        auto kept = folder.grants(user, scope, id);
        std::vector<Bytes> all = kept.ok() ? std::move(*kept) : std::vector<Bytes>{};
        const std::size_t before = all.size();
        for (const Bytes& bytes : fresh) {
          const auto grant = trust::decode_grant(bytes);
          const bool good = grant.ok() && grant->recipient == user && grant->scope == scope &&
                            grant->id == id && trust::check_grant(member.org(), *grant).ok();
          if (good && std::find(all.begin(), all.end(), bytes) == all.end()) all.push_back(bytes);
        }
        if (all.size() != before) DIMS_TRY(folder.keep_grants(user, scope, id, all));
        return all;
      };
}

// Which image a name means is the server's word alone: a machine that has had it notices another.
Status check_same_image(const MachineFolder& folder, const std::string& name,
                        const contract::ImageInfo& found, const std::string& user) {
  const auto known = folder.image(name);
  if (!known.ok() || known->image == found.id) return ok_status();
  return make_error(ErrorCode::kConflict,
                    "the server gives image " + found.id.short_hex() + " as '" + name +
                        "', which was " + known->image.short_hex() + " on this machine",
                    "if it was made anew, run 'ldim images " + user + "' once");
}

client::Grants kept_grants(MachineFolder& folder, const trust::UserId& user) {
  return [&folder, user](KeyScope scope, const trust::ScopeId& id) {
    return folder.grants(user, scope, id);
  };
}

Result<std::unique_ptr<contract::Remote>> remote_of(const MachineFolder& folder,
                                                    const client::Member& member) {
  client::ClientOptions options;
  options.address = folder.server();
  options.known_servers = folder.place().known_servers;
  options.machine = folder.machine().machine;
  options.machine_name = folder.machine().name;
  options.token = member.token;
  return client::connect(options);
}

// The session's keys and its certificate, by a user whose keys are open.
Result<SessionKeys> certify(const MachineFolder& folder, const trust::OrgLog& log,
                            const trust::UserSecrets& secrets, const client::Grants& grants,
                            const KnownImage& image, Access access) {
  const auto session = crypto::SecretSigner::from_seed(crypto::SecretKey::random(system_random()));
  DIMS_ASSIGN(trust::OrgLog copy, trust::OrgLog::open(log.state().org(), client::records_of(log)));
  const auto shared = std::make_shared<const trust::OrgLog>(std::move(copy));
  const MachineId machine = folder.machine().machine;
  SessionKeys out;
  DIMS_ASSIGN(out.keys, client::image_keys(shared, secrets, grants, {},
                                           {image.image, image.domain, access}, machine, session));
  out.image = image.image;
  const std::uint64_t now = client::unix_now_s();
  out.certificate = trust::encode_session(
      trust::make_session(log.state(), secrets.user, machine, {{image.image, access}}, now,
                          now + log.state().policy().session_max_s, session, secrets.sign));
  return out;
}

Result<client::Member> enter(MachineFolder& folder, const std::string& user, ByteView passphrase) {
  DIMS_TRY(contact(folder));
  DIMS_ASSIGN(client::Member member, client::login_user(folder.place(), user, passphrase));
  DIMS_TRY(folder.keep_log(member.log));
  DIMS_TRY(folder.offline().remember(member.org(), member.record, member.keys, member.secrets));
  return member;
}

Result<SessionKeys> online(MachineFolder& folder, const LoginWish& wish, ByteView passphrase) {
  DIMS_ASSIGN(client::Member member, enter(folder, wish.user, passphrase));
  DIMS_ASSIGN(const auto remote, remote_of(folder, member));
  DIMS_ASSIGN(const contract::ImageInfo found, remote->find_image(wish.image));
  const KnownImage image{found.id, found.domain};
  DIMS_TRY(check_same_image(folder, wish.image, found, wish.user));
  DIMS_ASSIGN(SessionKeys out, certify(folder, member.log, member.secrets,
                                       keeping_grants(folder, member), image, wish.access));
  DIMS_TRY(member.access->put_session(out.certificate));
  DIMS_TRY(folder.keep_image(wish.image, image));
  return out;
}

// What the log says of this machine, done; an error if that ends the login.
Status obey_log(MachineFolder& folder, const trust::OrgState& org) {
  const trust::MachineFile& machine = folder.machine();
  const Orders orders = orders_of(org, machine.machine, machine.obeyed_wipe_seq);
  if (!orders.any()) return ok_status();
  if (orders.wipe) DIMS_TRY(folder.obey(*orders.wipe));
  return explain(orders, machine.name);
}

Result<SessionKeys> offline(MachineFolder& folder, const LoginWish& wish, ByteView passphrase,
                            const Error& away) {
  DIMS_ASSIGN(const trust::OrgLog log, folder.log());
  // A running disk may have read what it says, and have been cut off before it was done.
  DIMS_TRY(obey_log(folder, log.state()));
  auto secrets = folder.offline().login(log.state(), wish.user, passphrase);
  if (!secrets.ok()) return secrets.error().with_context(away.message);
  DIMS_ASSIGN(const KnownImage image, folder.image(wish.image));
  DIMS_ASSIGN(SessionKeys out, certify(folder, log, *secrets, kept_grants(folder, secrets->user),
                                       image, wish.access));
  out.offline = true;
  spdlog::warn("{}: logged in without the server", wish.user);
  return out;
}

}  // namespace

Status contact(MachineFolder& folder) {
  const client::LoginPlace place = folder.place();
  const auto token = std::make_shared<client::LoginToken>(client::machine_login(place, {}));
  DIMS_ASSIGN(const auto access,
              client::AccessClient::connect(place.server, place.known_servers, token));
  auto log = client::read_log(*access, place.org, place.records);
  if (!log.ok() && log.error().code == ErrorCode::kPermissionDenied) {
    return make_error(ErrorCode::kPermissionDenied,
                      "the server refuses this machine ('" + folder.machine().name +
                          "'): it was never enrolled there",
                      "ask an administrator; unsent writes are still in the cache folder");
  }
  if (!log.ok()) return log.error();
  DIMS_TRY(folder.keep_log(*log));
  const Status ordered = obey_log(folder, log->state());
  // Said at each contact: the answer to an earlier one may have been lost.
  if (folder.machine().obeyed_wipe_seq != 0)
    DIMS_TRY(access->report_wipe(folder.machine().obeyed_wipe_seq));
  return ordered;
}

Result<SessionKeys> log_in(const LoginWish& wish, ByteView passphrase) {
  DIMS_ASSIGN(MachineFolder folder, MachineFolder::open(wish.machine_folder));
  DIMS_TRY(folder.lock());
  DIMS_TRY(folder.note_cache(wish.cache_folder));
  Result<SessionKeys> session = online(folder, wish, passphrase);
  if (!session.ok() && is_away(session.error()))
    session = offline(folder, wish, passphrase, session.error());
  if (session.ok())
    DIMS_TRY(folder.keep_certificate(session->keys.signing.public_key, session->certificate));
  return session;
}

Result<SessionKeys> log_in_child(const LoginWish& wish, ByteView passphrase) {
  DIMS_ASSIGN(Bytes answer, io::run_in_child([&]() -> Result<Bytes> {
                DIMS_ASSIGN(const SessionKeys keys, log_in(wish, passphrase));
                return encode_session_keys(keys);
              }));
  auto keys = decode_session_keys(answer);
  crypto::wipe(answer);
  return keys;
}

Result<ImageList> list_images(const std::string& machine_folder, const std::string& user,
                              ByteView passphrase) {
  DIMS_ASSIGN(MachineFolder folder, MachineFolder::open(machine_folder));
  DIMS_TRY(folder.lock());
  ImageList out;
  out.user = user;
  auto member = enter(folder, user, passphrase);
  if (!member.ok() && is_away(member.error())) {
    DIMS_ASSIGN(const trust::OrgLog log, folder.log());
    DIMS_TRY(obey_log(folder, log.state()));
    const auto secrets = folder.offline().login(log.state(), user, passphrase);
    if (!secrets.ok()) return secrets.error().with_context(member.error().message);
    out.offline = true;
    return out;
  }
  if (!member.ok()) return member.error();
  DIMS_ASSIGN(const auto remote, remote_of(folder, *member));
  DIMS_ASSIGN(const auto images, remote->list_images());
  const client::Grants grants = keeping_grants(folder, *member);
  out.escrow = member->org().policy().escrow;
  for (const contract::ImageInfo& image : images) {
    const Access access = member->org().access(member->secrets.user, image.id);
    if (access == Access::kNone) continue;
    DIMS_TRY(folder.keep_image(image.name, {image.id, image.domain}));
    DIMS_TRY(grants(KeyScope::kImage, trust::scope_id(image.id)));
    if (access >= Access::kWrite)
      DIMS_TRY(grants(KeyScope::kDomain, trust::scope_id(image.domain)));
    out.images.push_back({image.name, image.image_bytes, image.head_sequence, access});
  }
  return out;
}

}  // namespace dims::ldim
