#include "image-tools/rdim/root_key.h"

#include <CLI/CLI.hpp>

#include "common/client/passphrase.h"
#include "common/crypto/aead.h"
#include "common/trust/root_key.h"
#include "image-tools/rdim/newcomer.h"
#include "image-tools/rdim/people_text.h"

namespace dims::rdim {
namespace {

using namespace trust;

constexpr const char* kRootFile = "root-key";
constexpr std::size_t kRootFileMax = 4096;
constexpr std::size_t kOldRootBytes = 32 + crypto::kWrapOverheadBytes;

struct RescueOptions {
  std::string name;
  std::string file;
  std::string words;
};

// A new administrator, by the root key alone: nobody need be logged in.
Status rescue(Session& session, const RescueOptions& options) {
  DIMS_TRY(check_name("the user's name", options.name));
  DIMS_ASSIGN(RememberedPlace here, remembered_place(session.options.server));
  const std::string path = options.file.empty() ? here.folder.file(kRootFile) : options.file;
  DIMS_ASSIGN(const Bytes file, io::read_file(io::posix_file_system(), path, kRootFileMax));
  if (file.size() == kOldRootBytes) {
    return make_error(ErrorCode::kUnsupported,
                      path + " is of before: it opens with its administrator's own key only",
                      "let him run 'rdim user passwd HIMSELF --compromised', where the file is");
  }
  DIMS_ASSIGN(const crypto::SecretBytes words,
              client::read_line_of(options.words, "The root key's words"));
  DIMS_ASSIGN(const crypto::SecretSigner root, open_root(file, words.text()));
  const OrgId org = org_of(root.public_key);
  if (!here.place.org.is_zero() && !(here.place.org == org)) {
    return make_error(ErrorCode::kAlreadyExists,
                      here.folder.path() + " belongs to another organisation than that root key",
                      "set DIMS_CONFIG to another folder");
  }
  here.place.org = org;
  const auto token = std::make_shared<client::LoginToken>(client::join_login(here.place, root));
  DIMS_ASSIGN(const auto access,
              client::AccessClient::connect(here.place.server, here.place.known_servers, token));
  DIMS_ASSIGN(const LoginContext context, access->challenge());
  DIMS_ASSIGN(OrgLog log, client::read_log(*access, org, here.place.records));
  DIMS_ASSIGN(const crypto::SecretBytes passphrase,
              client::read_passphrase(session.options.people.passphrase,
                                      "New passphrase of " + options.name, true));
  DIMS_ASSIGN(
      const NewUser made,
      enroll_user(*access, log, {system_random().id<UserId>(), options.name, Role::kAdministrator},
                  passphrase.view(), root));
  DIMS_TRY(here.folder.save(
      {pinned_address(here.place.server, context.server), org, client::records_of(log)}));
  Json json;
  json["user"] = options.name;
  json["role"] = std::string(role_name(Role::kAdministrator));
  json["recovery_words"] = std::string(made.words.text());
  session.output.document(json);
  session.output.text("'" + options.name + "' is an administrator of '" + log.state().init().name +
                      "'; log in with the passphrase");
  print_words(session.output, made.words);
  session.output.text("Keys of images come from who has them: 'rdim image grant'.");
  return ok_status();
}

}  // namespace

Status keep_root_key(const Output& output, const client::OrgFolder& folder,
                     const crypto::SecretSigner& root, Json& json) {
  const SealedRoot sealed = seal_root(root, system_random());
  const std::string path = folder.file(kRootFile);
  DIMS_TRY(io::replace_file(io::posix_file_system(), path, sealed.file));
  output.note("Words of the root key, shown this once. Keep them, and a copy of " + path + ",");
  output.note("apart: together they make an administrator when none is left ('rdim org rescue').");
  output.note("  " + std::string(sealed.words.text()));
  json["root_key"] = path;
  json["root_words"] = std::string(sealed.words.text());
  return ok_status();
}

Status reseal_root_key(const Output& output, const client::OrgFolder& folder,
                       const UserSecrets& secrets, Json& json) {
  const auto file = io::read_file(io::posix_file_system(), folder.file(kRootFile), kRootFileMax);
  if (!file.ok() || file->size() != kOldRootBytes) return ok_status();
  const Secret32 key = crypto::prf(secrets.user_key.key(), "root-key", {secrets.org.view()});
  const auto seed = crypto::unwrap_secret(key, as_bytes("dims/root-key/1"), *file);
  if (!seed) return ok_status();  // another's
  const auto root = crypto::SecretSigner::from_seed(*crypto::SecretKey::from_view(seed->view()));
  if (!(org_of(root.public_key) == secrets.org)) return ok_status();
  return keep_root_key(output, folder, root, json);
}

void add_rescue_command(CLI::App& org, Command& run) {
  const auto options = std::make_shared<RescueOptions>();
  CLI::App* const rescued =
      org.add_subcommand("rescue", "A new administrator by the root key, when none is left");
  rescued->fallthrough();
  rescued->add_option("NAME", options->name, "The new administrator's name")->required();
  rescued->add_option("--root-key", options->file, "The root key's file; else the folder's own");
  rescued->add_option("--words", options->words,
                      "Where its words come from: - (asked), +FILE, -FD");
  rescued->callback([options, &run] {
    run = [options](Session& session) { return finish(session, rescue(session, *options)); };
  });
}

}  // namespace dims::rdim
