#include "image-tools/rdim/people.h"

#include "common/client/passphrase.h"

namespace dims::rdim {
namespace {

using trust::Access;
using trust::KeyScope;

constexpr std::uint64_t kSessionLasts_s = 86400;
constexpr std::chrono::hours kTokenLasts{24};

}  // namespace

Result<RememberedPlace> remembered_place(const std::string& server) {
  DIMS_ASSIGN(const std::string folder, config_folder());
  RememberedPlace out{client::OrgFolder(io::posix_file_system(), folder), {}};
  out.place.known_servers.path = client::user_known_servers();
  DIMS_ASSIGN(const auto known, out.folder.load());
  out.place.server = server;
  if (known) {
    if (server.empty()) out.place.server = known->server;
    out.place.org = known->org;
    out.place.records = known->records;
  }
  if (out.place.server.empty()) {
    return make_error(ErrorCode::kInvalidArgument, "no server is named",
                      "use --server HOST:PORT, --server unix:PATH or the variable RDIM_SERVER");
  }
  return out;
}

bool is_escrow(const trust::OrgState& org, const trust::User& user) {
  return org.policy().escrow && user.role == trust::Role::kAdministrator && org.is_active(user.id);
}

Result<std::unique_ptr<People>> People::open(const std::string& server,
                                             const PeopleOptions& options) {
  DIMS_ASSIGN(RememberedPlace remembered, remembered_place(server));
  const client::LoginPlace& place = remembered.place;
  std::unique_ptr<People> people;
  if (!options.user.empty()) {
    DIMS_ASSIGN(
        const crypto::SecretBytes passphrase,
        client::read_passphrase(options.passphrase, "Passphrase of " + options.user, false));
    DIMS_ASSIGN(client::Member member, client::login_user(place, options.user, passphrase.view()));
    people.reset(new People(place.server, std::move(remembered.folder), std::move(member)));
  } else {
    DIMS_ASSIGN(LoginFile login, load_login(remembered.folder.path(), system_clock()));
    // A token that the server has forgotten is renewed at the first call.
    std::optional<client::Token> token;
    // Whoever has it acts in this person's name: it goes to nobody but the server that gave it. Any
    // other has to prove itself in a login first.
    if (!login.token.is_zero() && login.token_server == place.server)
      token = {login.token, kTokenLasts};
    trust::PassphraseKeys keys;
    keys.login = std::move(login.login);
    DIMS_ASSIGN(
        client::Member member,
        client::resume_member(place, login.name, std::move(login.secrets), std::move(keys), token));
    people.reset(new People(place.server, std::move(remembered.folder), std::move(member)));
    people->login_ends_unix_s_ = login.ends_unix_s;
    people->kept_token_ = login.token;
  }
  DIMS_TRY(people->remember());
  return people;
}

People::~People() {
  if (login_ends_unix_s_ == 0 || !has_login(folder_.path())) return;
  const auto token = member_.token->current();
  if (token.ok() && !(*token == kept_token_)) (void)keep_login(login_ends_unix_s_);
}

Status People::keep_login(std::uint64_t ends_unix_s) {
  LoginFile file;
  file.name = member_.name;
  file.secrets = member_.secrets.clone();
  file.login = member_.keys.login.clone();
  file.ends_unix_s = login_ends_unix_s_ = ends_unix_s;
  const auto token = member_.token->current();
  if (token.ok()) {
    file.token = kept_token_ = *token;
    file.token_server = server_;
  }
  return save_login(folder_.path(), file, system_random());
}

Status People::remember() {
  return folder_.keep({server_, member_.org().org(), client::records_of(member_.log)});
}

DomainId People::default_domain(bool private_domain) const {
  return private_domain ? member_.secrets.private_domain : member_.org().init().domain;
}

Result<format::KeyFile> People::keys(const contract::ImageInfo& image, const ImageId& home,
                                     Access access) {
  return keys(home, image.domain, access);
}

Result<format::KeyFile> People::keys(const ImageId& image, const DomainId& domain, Access access) {
  const crypto::SecretSigner session =
      crypto::SecretSigner::from_seed(crypto::SecretKey::random(system_random()));
  DIMS_ASSIGN(trust::OrgLog log,
              trust::OrgLog::open(member_.org().org(), client::records_of(member_.log)));
  DIMS_ASSIGN(format::KeyFile keys,
              client::image_keys(std::make_shared<const trust::OrgLog>(std::move(log)),
                                 member_.secrets, client::grants_from(*member_.access),
                                 client::certificates_from(*member_.access),
                                 {image, domain, access}, {}, session));
  if (access >= Access::kWrite) {
    const std::uint64_t now = client::unix_now_s();
    const trust::SessionCertificate certificate =
        trust::make_session(member_.org(), member_.secrets.user, {}, {{image, Access::kWrite}}, now,
                            now + kSessionLasts_s, session, member_.secrets.sign);
    DIMS_TRY(member_.access->put_session(trust::encode_session(certificate)));
  }
  return keys;
}

Result<People::NewImage> People::new_image(bool private_domain) {
  const auto id = system_random().id<ImageId>();
  const trust::ScopeId scope = trust::scope_id(id);
  const crypto::SecretKey secret = crypto::SecretKey::random(system_random());
  DIMS_TRY(member_.append([&](const trust::OrgState&) -> Result<std::vector<trust::Body>> {
    trust::KeyEpoch epoch;
    epoch.scope = KeyScope::kImage;
    epoch.id = scope;
    epoch.epoch = 1;
    epoch.commitment = trust::epoch_commitment(KeyScope::kImage, scope, 1, secret.key());
    return std::vector<trust::Body>{trust::ImageAcl{id, member_.secrets.user, Access::kAdmin},
                                    epoch};
  }));
  DIMS_TRY(remember());
  std::vector<Bytes> grants;
  for (const trust::User* const user : member_.org().users()) {
    const bool own = user->id == member_.secrets.user;
    if (!own && !is_escrow(member_.org(), *user)) continue;
    DIMS_ASSIGN(grants.emplace_back(),
                trust::make_grant(member_.org(), KeyScope::kImage, scope, 1, secret.key(), user->id,
                                  member_.secrets.user, member_.secrets.sign));
  }
  DIMS_TRY(member_.access->put_grants(grants));
  DIMS_ASSIGN(format::KeyFile made, keys(id, default_domain(private_domain), Access::kWrite));
  return NewImage{id, std::move(made)};
}

}  // namespace dims::rdim
