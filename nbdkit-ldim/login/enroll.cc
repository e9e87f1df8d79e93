#include "nbdkit-ldim/login/enroll.h"

#include <unistd.h>
#include <spdlog/spdlog.h>

#include "common/trust/join_line.h"
#include "nbdkit-ldim/login/tpm_seal.h"

namespace dims::ldim {
namespace {

constexpr int kTries = 5;

std::string host_name() {
  char name[trust::kNameBytesMax] = {};
  if (::gethostname(name, sizeof name - 1) != 0 || !trust::is_valid_name(name)) return "machine";
  return std::string(name);
}

// Where and how: the same for a new machine and for one whose answer was lost.
struct Joining {
  const trust::JoinLine& line;
  const client::OrgFolder& folder;
  client::LoginPlace place;
};

Status check_position(const Joining& joining, const trust::OrgLog& log) {
  if (log.state().hash_at(joining.line.position.seq) == joining.line.position.hash)
    return ok_status();
  return make_error(ErrorCode::kOtherHistory,
                    "the server's log is not the one that this line was made on",
                    "ask the administrator");
}

// Durable on return; the last step makes it a machine.
Result<Enrolled> settle(const Joining& joining, const trust::OrgLog& log,
                        const trust::MachineFile& machine, bool sealed, bool by_tpm) {
  auto& fs = io::posix_file_system();
  const client::OrgFolder& folder = joining.folder;
  DIMS_TRY(forget_former_machine(folder));
  DIMS_TRY(folder.save({joining.place.server, joining.line.org, client::records_of(log)}));
  DIMS_TRY(fs.rename(folder.file("machine.new"), folder.file("machine")));
  DIMS_TRY(fs.sync_folder(folder.path()));
  return Enrolled{machine.name,         machine.machine, log.state().init().name,
                  joining.place.server, sealed,          by_tpm};
}

// An enrolment that ended before its answer came: the line is spent then, and the server knows the
// machine. Nothing if there is none, or if it has not got so far.
Result<std::optional<Enrolled>> finish_earlier(const Joining& joining, bool sealed, bool by_tpm,
                                               const crypto::HeldKey* seal) {
  const std::optional<Enrolled> none;
  const std::string path = joining.folder.file("machine.new");
  DIMS_ASSIGN(const bool there, io::posix_file_system().exists(path));
  if (!there) return none;
  const auto machine = trust::load_machine(path, seal != nullptr ? &seal->key() : nullptr);
  if (!machine.ok() && machine.error().code == ErrorCode::kWrongKey) {
    Error error = machine.error();
    error.hint =
        "an enrolment was begun here: go on where its TPM or credential is, or remove " + path;
    return error;
  }
  // What is damaged had not been finished.
  if (!machine.ok() || !(machine->org == joining.line.org)) return none;
  client::LoginPlace place = joining.place;
  place.machine = &*machine;
  const auto token = std::make_shared<client::LoginToken>(client::machine_login(place, {}));
  DIMS_ASSIGN(const auto access,
              client::AccessClient::connect(place.server, place.known_servers, token));
  const auto log = client::read_log(*access, joining.line.org, {});
  if (!log.ok() && (log.error().code == ErrorCode::kUnavailable ||
                    log.error().code == ErrorCode::kDeadlineExceeded))
    return log.error();
  if (!log.ok()) return none;  // whatever it is: the line shows it again
  DIMS_TRY(check_position(joining, *log));
  const trust::Machine* const known = log->state().machine(machine->machine);
  const trust::Join* const spent = log->state().join(joining.line.join_key().public_key);
  if (known == nullptr || known->revoked || !(known->sign_key == machine->sign.public_key) ||
      spent == nullptr || spent->status != trust::JoinStatus::kUsed)
    return none;
  DIMS_ASSIGN(Enrolled done, settle(joining, *log, *machine, sealed, by_tpm));
  return std::optional<Enrolled>(std::move(done));
}

}  // namespace

Result<Enrolled> enroll(const std::string& path, const std::string& join_line,
                        const std::string& name, UseTpm tpm) {
  DIMS_ASSIGN(const trust::JoinLine line, trust::parse_join_line(join_line));
  if (!line.for_machine) {
    return make_error(ErrorCode::kInvalidArgument, "this line is for a user, not for a machine",
                      "use 'rdim join LINE' for it");
  }
  auto& fs = io::posix_file_system();
  DIMS_TRY(fs.make_folder(path));
  const client::OrgFolder folder(fs, path);
  DIMS_ASSIGN(const bool there, fs.exists(folder.file("machine")));
  if (there) {
    return make_error(ErrorCode::kAlreadyExists, "a machine is enrolled in " + path,
                      "name another folder with --machine, or remove the file 'machine' there "
                      "first if this machine is to be enrolled again");
  }
  client::LoginPlace place;
  place.server = line.server.is_zero() ? line.address : line.address + "#" + line.server.hex();
  place.known_servers.path = folder.file("known-servers");
  place.org = line.org;
  const Joining joining{line, folder, place};
  DIMS_ASSIGN(auto seal, machine_seal(path));
  DIMS_ASSIGN(bool by_tpm, has_tpm_seal(path));
  DIMS_ASSIGN(auto finished,
              finish_earlier(joining, seal.has_value(), by_tpm, seal ? &*seal : nullptr));
  if (finished) return std::move(*finished);
  const crypto::SecretSigner key = line.join_key();
  const auto token = std::make_shared<client::LoginToken>(client::join_login(place, key));
  DIMS_ASSIGN(const auto access,
              client::AccessClient::connect(place.server, place.known_servers, token));
  DIMS_ASSIGN(trust::OrgLog log, client::read_log(*access, line.org, {}));
  DIMS_TRY(check_position(joining, log));
  const trust::Join* const wish = log.state().join(key.public_key);
  if (wish == nullptr || wish->status != trust::JoinStatus::kOpen) {
    return make_error(ErrorCode::kPermissionDenied, "this join line was used or cancelled",
                      "ask the administrator for another: 'rdim machine token'");
  }
  std::string chosen = wish->body.name;
  if (chosen.empty()) chosen = name.empty() ? host_name() : name;
  trust::MachineFile machine = trust::make_machine(line.org, chosen, system_random());
  machine.server_address = line.address;
  machine.server = line.server;
  if (!seal && (tpm == UseTpm::kYes || (tpm == UseTpm::kAuto && has_tpm()))) {
    const auto made = make_tpm_seal(path, system_random());
    if (!made.ok() && tpm == UseTpm::kYes) return made.error();
    if (made.ok()) {
      seal = *made;
      by_tpm = true;
    } else {
      (void)fs.remove(path + "/machine-tpm");
      spdlog::warn("the TPM is not used: {}", made.error().to_string());
    }
  }
  // Before the server knows of it: a certificate whose key is lost would hold the name for ever.
  DIMS_TRY(trust::save_machine(folder.file("machine.new"), machine, seal ? &seal->key() : nullptr,
                               system_random()));
  for (int attempt = 1;; ++attempt) {
    const trust::Position at = log.position();
    const trust::LogRecord record =
        trust::make_record(line.org, &at, client::unix_now_s(), machine.certificate(), key);
    const auto enrolled = access->enroll(at, record.bytes, {});
    if (enrolled.ok()) {
      DIMS_TRY(log.append(record.bytes, at));
      break;
    }
    if (enrolled.error().code != ErrorCode::kConflict || attempt == kTries) {
      Error error = enrolled.error();
      if (error.code == ErrorCode::kUnavailable || error.code == ErrorCode::kDeadlineExceeded)
        error.hint = "use the same line again: if the server has taken it, this goes on";
      return error;
    }
    DIMS_ASSIGN(log, client::read_log(*access, line.org, client::records_of(log)));
  }
  return settle(joining, log, machine, seal.has_value(), by_tpm);
}

}  // namespace dims::ldim
