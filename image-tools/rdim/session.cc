#include "image-tools/rdim/session.h"

#include <unistd.h>

#include "common/base/parse.h"
#include "common/client/admin.h"
#include "common/client/client.h"
#include "common/crypto/hash.h"
#include "common/io/file.h"
#include "image-tools/transfer/patient_remote.h"

namespace dims::rdim {
namespace {

constexpr int kBranchesMax = 16;  // of branches

// The same machine has the same id at every run; what it is made from is not told to anyone.
MachineId machine_id() {
  const auto text = io::read_file(io::posix_file_system(), "/etc/machine-id", 4096);
  if (!text.ok() || text->empty()) return system_random().id<MachineId>();
  const Digest digest = crypto::sha256({as_bytes("dims/machine/1"), *text});
  return *MachineId::from_view(digest.view().first(MachineId::kBytes));
}

std::string host_name() {
  char name[256] = {};
  if (::gethostname(name, sizeof name - 1) != 0) return std::string("unknown");
  return std::string(name);
}

}  // namespace

Session::Session(Signals& signals) : signals_(signals) {
  who_.machine = machine_id();
  who_.machine_name = host_name();
  who_.session = system_random().id<SessionId>();
}

Session::~Session() { signals_.clear(); }

bool Session::is_member() const {
  if (has_key()) return false;
  if (!options.people.user.empty() || people_ != nullptr) return true;
  // Looking makes no folder.
  const std::string beside = client::user_known_servers();
  return !beside.empty() && has_login(io::parent_folder(beside));
}

Result<People*> Session::people() {
  if (people_) return people_.get();
  if (has_key()) {
    return make_error(ErrorCode::kInvalidArgument, "this needs a login, not a key file",
                      "leave --key away (and RDIM_KEY), and use 'rdim login USER'");
  }
  DIMS_ASSIGN(people_, People::open(options.server, options.people));
  return people_.get();
}

Result<format::KeyFile> Session::key_for(const contract::ImageInfo& image, trust::Access access) {
  if (!is_member()) return key();
  DIMS_ASSIGN(People* const member, people());
  contract::ImageInfo home = image;
  // A branch has keys and list of what it branched from.
  for (int i = 0; i < kBranchesMax && !home.conflict_of.empty(); ++i) {
    DIMS_ASSIGN(contract::Remote* const server, remote());
    DIMS_ASSIGN(home, server->find_image(home.conflict_of));
  }
  return member->keys(image, home.id, access);
}

Result<contract::Remote*> Session::remote() {
  if (remote_) return remote_.get();
  client::ClientOptions wanted;
  if (is_member()) {
    DIMS_ASSIGN(People* const member, people());
    wanted.token = member->member().token;
    options.server = member->server();
  }
  if (options.server.empty()) {
    return make_error(ErrorCode::kInvalidArgument, "no server is named",
                      "use --server HOST:PORT, --server unix:PATH or the variable RDIM_SERVER");
  }
  wanted.address = options.server;
  wanted.known_servers.path = client::user_known_servers();
  wanted.machine = who_.machine;
  wanted.machine_name = who_.machine_name;
  wanted.session = who_.session;
  DIMS_ASSIGN(remote_, client::connect(wanted));
  listen_for_interrupt();
  return remote_.get();
}

Result<contract::Remote*> Session::patient_remote() {
  DIMS_ASSIGN(const std::chrono::milliseconds patience, parse_duration(options.server_wait));
  DIMS_ASSIGN(contract::Remote* const server, remote());
  DIMS_TRY(server->hello());
  if (!patient_) {
    patient_ =
        std::make_unique<transfer::PatientRemote>(*server, patience, system_clock(), progress);
  }
  return patient_.get();
}

Result<contract::Admin*> Session::admin() {
  if (admin_) return admin_.get();
  DIMS_TRY(remote());  // names the mistake if no server is named
  client::KnownServers known;
  known.path = client::user_known_servers();
  DIMS_ASSIGN(admin_, client::connect_admin(options.server, known,
                                            people_ ? people_->member().token : nullptr));
  listen_for_interrupt();
  return admin_.get();
}

void Session::listen_for_interrupt() {
  signals_.on_interrupt(&progress.cancel, [remote = remote_.get(), admin = admin_.get()] {
    remote->shutdown();
    if (admin != nullptr) admin->shutdown();
  });
}

Result<format::KeyFile> Session::key() const {
  if (options.key_path.empty()) {
    return make_error(ErrorCode::kInvalidArgument, "nobody is logged in, and no key file is named",
                      "with an organisation: 'rdim login USER'; without: --key FILE or the "
                      "variable RDIM_KEY ('rdim key new FILE' makes one)");
  }
  return format::load_key_file(options.key_path);
}

ExitCode finish(const Session& session, const Status& status) {
  return status.ok() ? kExitOk : session.output.error(status.error());
}

Json json_of(const contract::HolderInfo& holder) {
  Json json;
  json["machine"] = holder.machine.hex();
  json["machine_name"] = holder.machine_name;
  json["session"] = holder.session.hex();
  json["expires_in_ms"] = holder.expires_in.count();
  json["expired"] = holder.expires_in.count() == 0;
  json["unsent_bytes"] = holder.unsent_bytes;
  return json;
}

Json json_of(const contract::ImageInfo& image) {
  Json json;
  json["name"] = image.name;
  json["id"] = image.id.hex();
  json["image_bytes"] = image.image_bytes;
  json["head"] = image.head.is_zero() ? Json(nullptr) : Json(image.head.hex());
  json["sequence"] = image.head_sequence;
  json["created"] = json_of_time(image.created_unix_ns);
  json["chunk_mean_bytes"] = image.tree.chunk_mean_bytes;
  json["leaf_pages"] = image.tree.leaf_pages;
  json["fanout"] = image.tree.fanout;
  json["domain"] = image.domain.hex();
  json["origin"] = image.origin.is_zero() ? Json(nullptr) : Json(image.origin.hex());
  json["conflict_of"] = image.conflict_of.empty() ? Json(nullptr) : Json(image.conflict_of);
  json["branches"] = image.branches;
  json["holder"] = image.holder ? json_of(*image.holder) : Json(nullptr);
  json["may_hold_unsent"] = Json::array();
  for (const contract::HolderInfo& machine : image.unsent) {
    json["may_hold_unsent"].push_back({{"machine", machine.machine.hex()},
                                       {"machine_name", machine.machine_name},
                                       {"session", machine.session.hex()},
                                       {"unsent_bytes", machine.unsent_bytes}});
  }
  return json;
}

std::string unsent_text(const contract::ImageInfo& image) {
  std::string text;
  for (const contract::HolderInfo& machine : image.unsent) {
    if (!text.empty()) text += ", ";
    text += machine.machine_name.empty() ? machine.machine.short_hex() : machine.machine_name;
  }
  return text.empty() ? std::string("-") : text;
}

std::string holder_text(const contract::ImageInfo& image) {
  if (!image.holder) return std::string("-");
  std::string text = image.holder->machine_name.empty() ? image.holder->machine.short_hex()
                                                        : image.holder->machine_name;
  if (image.holder->expires_in.count() == 0) text += " (expired: may hold unsent writes)";
  return text;
}

}  // namespace dims::rdim
