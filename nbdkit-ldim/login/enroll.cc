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
                      "name another folder with --machine");
  }
  client::LoginPlace place;
  place.server = line.server.is_zero() ? line.address : line.address + "#" + line.server.hex();
  place.known_servers.path = folder.file("known-servers");
  place.org = line.org;
  const crypto::SecretSigner key = line.join_key();
  const auto token = std::make_shared<client::LoginToken>(client::join_login(place, key));
  DIMS_ASSIGN(const auto access,
              client::AccessClient::connect(place.server, place.known_servers, token));
  DIMS_ASSIGN(trust::OrgLog log, client::read_log(*access, line.org, {}));
  if (!(log.state().hash_at(line.position.seq) == line.position.hash)) {
    return make_error(ErrorCode::kOtherHistory,
                      "the server's log is not the one that this line was made on",
                      "ask the administrator");
  }
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
  DIMS_ASSIGN(auto seal, machine_seal(path));
  DIMS_ASSIGN(bool by_tpm, has_tpm_seal(path));
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
    if (enrolled.error().code != ErrorCode::kConflict || attempt == kTries) return enrolled.error();
    DIMS_ASSIGN(log, client::read_log(*access, line.org, client::records_of(log)));
  }
  DIMS_TRY(folder.save({place.server, line.org, client::records_of(log)}));
  DIMS_TRY(fs.rename(folder.file("machine.new"), folder.file("machine")));
  DIMS_TRY(fs.sync_folder(path));
  return Enrolled{chosen,       machine.machine,  log.state().init().name,
                  place.server, seal.has_value(), by_tpm};
}

}  // namespace dims::ldim
