// What every command of rdim shares: the global options, the key file, the connection, the output.
// Threads: the main thread only.
#pragma once

#include <memory>
#include <string>

#include "common/contract/admin.h"
#include "common/contract/remote.h"
#include "common/format/key_file.h"
#include "image-tools/rdim/output.h"
#include "image-tools/rdim/people.h"
#include "image-tools/rdim/signals.h"
#include "image-tools/transfer/progress.h"
#include "image-tools/transfer/who.h"

namespace CLI {
class App;
}

namespace dims::rdim {

struct GlobalOptions {
  std::string server;
  std::string key_path;
  std::string output = "plain";
  std::string server_wait = "2m";
  PeopleOptions people;
};

class Session {
 public:
  explicit Session(Signals& signals);
  // A question is asked: the first Ctrl-C ends the program.
  void await_answer() { signals_.clear(); }
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  GlobalOptions options;
  Output output;
  transfer::Progress progress;

  // Connects at the first call. kInvalidArgument if no server is named.
  Result<contract::Remote*> remote();
  // The same for a transfer that waits for a server that goes away in the middle; one that is away
  // now is an error at once.
  Result<contract::Remote*> patient_remote();
  // The same for the administrators' calls.
  Result<contract::Admin*> admin();
  // Who runs this, by --user or by an earlier login. kInvalidArgument with --key.
  Result<People*> people();
  // Reads the key file. kInvalidArgument if none is named.
  Result<format::KeyFile> key() const;
  // The keys of an image that is there: the key file's, or those granted to who is logged in.
  Result<format::KeyFile> key_for(const contract::ImageInfo& image, trust::Access access);
  bool has_key() const { return !options.key_path.empty(); }
  // Somebody is logged in, or logs in for this command, and no key file is named.
  bool is_member() const;
  const transfer::Who& who() const { return who_; }

 private:
  void listen_for_interrupt();

  Signals& signals_;
  transfer::Who who_;
  std::unique_ptr<People> people_;
  std::unique_ptr<contract::Remote> remote_;
  std::unique_ptr<contract::Remote> patient_;  // before it
  std::unique_ptr<contract::Admin> admin_;
};

// One a verb group: adds its subcommands; `*run` is set to what the chosen one does.
using Command = std::function<ExitCode(Session&)>;
void add_key_commands(CLI::App& app, Command& run);
void add_image_commands(CLI::App& app, Command& run);
void add_import_command(CLI::App& image, Command& run);
void add_export_command(CLI::App& image, Command& run);
void add_resolve_command(CLI::App& image, Command& run);
void add_info_command(CLI::App& image, Command& run);
void add_version_commands(CLI::App& app, Command& run);
void add_retention_command(CLI::App& image, Command& run);
void add_forget_command(CLI::App& image, Command& run);
void add_maintenance_commands(CLI::App& app, Command& run);
void add_organisation_commands(CLI::App& app, Command& run);
void add_joins_command(CLI::App& org, Command& run);
void add_login_commands(CLI::App& app, Command& run);
void add_user_commands(CLI::App& app, Command& run);
void add_machine_commands(CLI::App& app, Command& run);
void add_access_commands(CLI::App& image, Command& run);
void add_audit_command(CLI::App& app, Command& run);

// For bodies that return a Status or an error: prints it and gives the exit code.
ExitCode finish(const Session& session, const Status& status);

Json json_of(const contract::HolderInfo& holder);
// Fields that every listing of an image has.
Json json_of(const contract::ImageInfo& image);
// "NAME" or "NAME (id)": who holds the lease; "-" nobody.
std::string unsent_text(const contract::ImageInfo& image);  // machines that may hold some, or "-"
std::string holder_text(const contract::ImageInfo& image);

}  // namespace dims::rdim
