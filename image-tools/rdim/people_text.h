// What the commands about people share: names for ids, recovery words on the screen, join lines.
// Threads: free functions of the main thread. Errors: kNotFound naming what is not there.
#pragma once

#include "image-tools/rdim/output.h"
#include "image-tools/rdim/people.h"

namespace dims::rdim {

// HOST:PORT#FINGERPRINT; a UNIX socket's address as it is.
std::string pinned_address(const std::string& address, const Digest& server);
void print_words(const Output& output, const crypto::SecretBytes& words);

Result<trust::User> user_named(const trust::OrgState& org, const std::string& name);
Result<trust::Machine> machine_named(const trust::OrgState& org, const std::string& name);
// "ann", "everyone", or the id's start of somebody unknown.
std::string user_text(const trust::OrgState& org, const trust::UserId& user);
std::string machine_text(const trust::OrgState& org, const MachineId& machine);
// Who holds that key, and what a record is about.
std::string signer_text(const trust::OrgState& org, const trust::PublicKey& key);
std::string about_of(const trust::OrgState& org, const trust::LogRecord& record);

// One line "made N grants, began N epochs" if there was anything, and what others must see to.
struct KeeperReport;
void print_report(const Output& output, Json& json, const KeeperReport& report);

// A one-time line for a new user or machine: announced in the log, printed once.
struct JoinWish {
  bool for_machine = false;
  std::string name;
  trust::Role role = trust::Role::kUser;
  std::uint64_t lasts_s = 7 * 86400;
};
Result<std::string> make_join_line(People& people, const JoinWish& wish);

}  // namespace dims::rdim
