#include "image-tools/rdim/people_text.h"

#include <spdlog/spdlog.h>

#include "common/base/parse.h"
#include "common/trust/join_line.h"
#include "image-tools/rdim/keeper.h"

namespace dims::rdim {

using namespace trust;

std::string pinned_address(const std::string& address, const Digest& server) {
  const std::string plain = address.substr(0, address.find('#'));
  return server.is_zero() ? plain : plain + "#" + server.hex();
}

void print_words(const Output& output, const crypto::SecretBytes& words) {
  output.text("Recovery words, shown this once. Write them down and keep them apart:");
  output.text("  " + std::string(words.text()));
}

Result<User> user_named(const OrgState& org, const std::string& name) {
  const User* const user = org.user_named(name);
  if (user != nullptr) return *user;
  return make_error(ErrorCode::kNotFound, "there is no user '" + name + "'",
                    "'rdim user ls' shows who there is");
}

Result<Machine> machine_named(const OrgState& org, const std::string& name) {
  const Machine* const machine = org.machine_named(name);
  if (machine != nullptr) return *machine;
  // One that was revoked may still be told to erase what it has: the last of that name.
  const Machine* revoked = nullptr;
  for (const Machine* const one : org.machines())
    if (one->name == name && (revoked == nullptr || one->since_seq > revoked->since_seq))
      revoked = one;
  if (revoked != nullptr) return *revoked;
  return make_error(ErrorCode::kNotFound, "there is no machine '" + name + "'",
                    "'rdim machine ls' shows which there are");
}

std::string user_text(const OrgState& org, const UserId& user) {
  if (user == kEveryone) return std::string("everyone");
  const User* const known = org.user(user);
  return known == nullptr ? user.short_hex() : known->name;
}

std::string machine_text(const OrgState& org, const MachineId& machine) {
  if (machine.is_zero()) return std::string("-");
  const Machine* const known = org.machine(machine);
  return known == nullptr ? machine.short_hex() : known->name;
}

std::string signer_text(const OrgState& org, const PublicKey& key) {
  if (key == org.init().root_key) return std::string("root");
  if (const User* const user = org.user_of_key(key)) return user->name;
  if (org.join(key) != nullptr) return std::string("a join line");
  return key.short_hex();
}

namespace {

struct About {
  const OrgState& org;
  std::string operator()(const OrgInit& b) const { return b.name; }
  std::string operator()(const UserCert& b) const {
    return b.name + ", " + std::string(role_name(b.role));
  }
  std::string operator()(const UserState& b) const {
    return user_text(org, b.user) + ": " + std::string(status_name(b.status)) + ", " +
           std::string(role_name(b.role));
  }
  std::string operator()(const KeyChange& b) const { return user_text(org, b.user); }
  std::string operator()(const MachineCert& b) const { return b.name; }
  std::string operator()(const MachineRevoke& b) const { return machine_text(org, b.machine); }
  std::string operator()(const MachineWipe& b) const {
    return machine_text(org, b.machine) + (b.spare_unsent ? "" : ", unsent writes too");
  }
  std::string operator()(const JoinKey& b) const {
    return (b.for_machine ? "machine " : "user ") + (b.name.empty() ? "of any name" : b.name);
  }
  std::string operator()(const JoinCancel& b) const { return b.key.short_hex(); }
  std::string operator()(const ImageAcl& b) const {
    return "image " + b.image.short_hex() + ": " + user_text(org, b.user) + " " +
           std::string(access_name(b.access));
  }
  std::string operator()(const KeyEpoch& b) const {
    return (b.scope == KeyScope::kDomain ? "domain " : "image ") + b.id.short_hex() + ", epoch " +
           std::to_string(b.epoch);
  }
  std::string operator()(const Policy&) const { return std::string("-"); }
  std::string operator()(const Quota& b) const { return user_text(org, b.user); }
};

}  // namespace

std::string about_of(const OrgState& org, const LogRecord& record) {
  return std::visit(About{org}, record.body);
}

void print_report(const Output& output, Json& json, const KeeperReport& report) {
  json["grants"] = report.grants;
  json["epochs"] = report.epochs;
  json["left"] = Json::array();
  if (report.epochs != 0 || report.grants != 0) {
    output.text("began " + std::to_string(report.epochs) + " key epochs, made " +
                std::to_string(report.grants) + " grants");
  }
  for (const ImageId& image : report.left) {
    json["left"].push_back(image.hex());
    output.text("image " + image.short_hex() +
                ": its keys are not yours; who administers it must run 'rdim image rotate'");
  }
}

Result<std::string> make_join_line(People& people, const JoinWish& wish) {
  client::Member& member = people.member();
  JoinLine line;
  line.token = make_join_token(system_random());
  line.for_machine = wish.for_machine;
  line.org = member.org().org();
  DIMS_ASSIGN(const ServerAddress server, parse_server(people.server()));
  line.address = server.address;
  if (server.fingerprint) line.server = *server.fingerprint;
  const std::string host = server.address.substr(0, server.address.rfind(':'));
  if (server.is_unix() || host == "localhost" || host == "[::1]" || host.starts_with("127.")) {
    spdlog::warn(
        "the line names the server {}, which is this host alone: use --server with the name that "
        "others reach it by",
        server.address);
  }
  JoinKey key;
  key.key = line.join_key().public_key;
  key.for_machine = wish.for_machine;
  key.name = wish.name;
  key.role = wish.role;
  if (!wish.for_machine) key.user = system_random().id<UserId>();
  key.expires_unix_s = client::unix_now_s() + wish.lasts_s;
  DIMS_TRY(member.append(
      [&](const OrgState&) -> Result<std::vector<Body>> { return std::vector<Body>{key}; }));
  DIMS_TRY(people.remember());
  line.position = member.log.position();
  return encode_join_line(line);
}

}  // namespace dims::rdim
