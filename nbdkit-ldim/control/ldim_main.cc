// ldim: talks to the LDIM that serves a cache folder, over the control socket in that folder.
//
// Exit codes (ldim(1)): 0 ok; 1 failed; 2 wrong usage; 3 no LDIM serves the folder; 4 refused
// (conflict, lease held, a client is connected); 5 the server cannot be reached, or not in time; 6
// a check found something worse than a note.
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <string>
#include <thread>
#include <utility>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "common/base/cli.h"
#include "common/base/parse.h"
#include "common/base/result.h"
#include "common/io/file.h"
#include "nbdkit-ldim/control/folder_check.h"
#include "nbdkit-ldim/control/login_commands.h"
#include "nbdkit-ldim/control/salvage_folder.h"
#include "nbdkit-ldim/disk/cache_folder.h"

namespace {

using dims::format_size;
using nlohmann::json;

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr int kExitNotServing = 3;
constexpr int kExitRefused = 4;
constexpr int kExitUnreachable = 5;
constexpr int kExitFindings = 6;

struct Settings {
  std::string cache;
  std::string output = "plain";
  bool json_output() const { return output == "json"; }
};

int exit_code_of(const std::string& code) {
  if (code == "invalid-argument") return kExitUsage;
  if (code == "conflict" || code == "lease-held" || code == "stale-lease" ||
      code == "permission-denied")
    return kExitRefused;
  if (code == "unavailable" || code == "deadline-exceeded") return kExitUnreachable;
  return kExitFailed;
}

int fail(const Settings& settings, int exit_code, const std::string& code,
         const std::string& message, const std::string& hint) {
  if (settings.json_output()) {
    std::cout << json{{"error", {{"code", code}, {"message", message}, {"hint", hint}}}}.dump(2)
              << "\n";
  }
  std::cerr << "ldim: " << message;
  if (!hint.empty()) std::cerr << " (" << hint << ")";
  std::cerr << "\n";
  return exit_code;
}

// One request, its answers; on_progress sees all but the last.
class Client {
 public:
  // `ours`: only with an LDIM of this user's, for what is not for others.
  explicit Client(const Settings& settings, bool ours = false) : settings_(settings), ours_(ours) {}
  ~Client() {
    if (fd_ >= 0) ::close(fd_);
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // 0 and the result, or an exit code (the error has been printed).
  template <typename Progress>
  int call(const json& request, json& result, Progress&& on_progress) {
    const std::string path = settings_.cache + "/control.sock";
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) {
      return fail(settings_, kExitUsage, "invalid-argument",
                  "the path of the cache folder is too long", "");
    }
    std::copy(path.begin(), path.end(), address.sun_path);
    if (!connect_to(address) && dims::ldim::FolderLock::held(settings_.cache)) {
      return fail(settings_, kExitUnreachable, "unavailable",
                  "the LDIM of " + settings_.cache + " is still opening its disk",
                  "nbdkit's messages say what it waits for, such as another machine's hand-off");
    }
    if (fd_ < 0) {
      return fail(
          settings_, kExitNotServing, "unavailable",
          "no LDIM serves " + settings_.cache + ": " + std::strerror(errno),
          "start nbdkit with cache=" + settings_.cache + ", or name another folder with --cache");
    }
    if (ours_ && !is_ours()) {
      return fail(settings_, kExitRefused, "permission-denied", path + " is served by another user",
                  "use 'ldim renew' as the user whose nbdkit it is");
    }
    std::string text = request.dump() + "\n";
    if (::send(fd_, text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size()))
      return broken();
    for (;;) {
      std::string line;
      if (!read_line(line)) return broken();
      json answer = json::parse(line, nullptr, false);
      if (!answer.is_object()) return broken();
      if (!answer.value("done", false)) {
        on_progress(answer);
        continue;
      }
      if (answer.contains("error")) {
        const json& error = answer["error"];
        const std::string code = error.value("code", "internal");
        return fail(settings_, exit_code_of(code), code, error.value("message", ""),
                    error.value("hint", ""));
      }
      result = std::move(answer["result"]);
      return 0;
    }
  }

 private:
  // An nbdkit that has just been started makes its socket when its disk is open. By then it holds
  // the folder.
  bool connect_to(const sockaddr_un& address) {
    constexpr std::chrono::milliseconds kPause{100};
    constexpr int kTries = 300;
    for (int tries = 0;; ++tries) {
      fd_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
      if (fd_ < 0) return false;
      if (::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0)
        return true;
      const int e = errno;
      ::close(std::exchange(fd_, -1));
      errno = e;
      if (e != ENOENT && e != ECONNREFUSED) return false;
      if (tries == kTries || !dims::ldim::FolderLock::held(settings_.cache)) {
        errno = e;
        return false;
      }
      std::this_thread::sleep_for(kPause);
    }
  }
  // Root takes the owner of the folder that he has named, too.
  bool is_ours() const {
    ucred peer{};
    socklen_t length = sizeof peer;
    if (::getsockopt(fd_, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return false;
    if (peer.uid == 0 || peer.uid == ::geteuid()) return true;
    struct stat folder {};
    return ::geteuid() == 0 && ::stat(settings_.cache.c_str(), &folder) == 0 &&
           folder.st_uid == peer.uid;
  }
  int broken() {
    return fail(settings_, kExitFailed, "unavailable",
                "LDIM closed the control socket in the middle of its answer",
                "look at nbdkit's messages");
  }
  bool read_line(std::string& line) {
    for (;;) {
      const auto end = buffer_.find('\n');
      if (end != std::string::npos) {
        line = buffer_.substr(0, end);
        buffer_.erase(0, end + 1);
        return true;
      }
      char chunk[4096];
      const ssize_t n = ::recv(fd_, chunk, sizeof chunk, 0);
      if (n <= 0) return false;
      buffer_.append(chunk, static_cast<std::size_t>(n));
    }
  }

  const Settings& settings_;
  const bool ours_;
  int fd_ = -1;
  std::string buffer_;
};

void print_status(const json& s) {
  const auto bytes = [](const json& v) { return format_size(v.get<std::uint64_t>()); };
  const auto yes = [](bool v) { return v ? "yes" : "no"; };
  const json& journal = s["journal"];
  const json& cache = s["cache"];
  const json& ready = s["offline_ready"];
  std::printf("image               %s (%s)\n", s["image"].get<std::string>().c_str(),
              bytes(s["size_bytes"]).c_str());
  if (!s["branch"].get<std::string>().empty()) {
    std::printf(
        "conflict branch     %s: another machine has written to the image; this session goes on "
        "here\n",
        s["branch"].get<std::string>().c_str());
  }
  for (const json& branch : s.value("conflict_branches", json::array())) {
    std::printf(
        "conflict branch     %s: writes that are not in the image; 'rdim image resolve' keeps one "
        "side\n",
        branch.get<std::string>().c_str());
  }
  std::printf("version             %llu (%.12s)\n",
              s["version"]["sequence"].get<unsigned long long>(),
              s["version"]["id"].get<std::string>().c_str());
  if (s["newer_version_available"].get<bool>()) {
    std::printf("newer version       %llu, used from the next session\n",
                s["head"]["sequence"].get<unsigned long long>());
  }
  std::printf("session             %.12s, %s, machine %s\n",
              s["session"]["id"].get<std::string>().c_str(),
              s["session"]["mode"].get<std::string>().c_str(),
              s["session"]["machine"].get<std::string>().c_str());
  std::printf("server              %s, %s\n", s["server"]["address"].get<std::string>().c_str(),
              s["server"]["connected"].get<bool>() ? "connected" : "not reachable");
  std::printf("lease               %s\n", s["lease"]["held"].get<bool>() ? "held" : "not held");
  std::printf("journal             %s of %s, %llu epochs not yet on the server (%s)\n",
              bytes(journal["bytes"]).c_str(), bytes(journal["limit_bytes"]).c_str(),
              journal["unsent_epochs"].get<unsigned long long>(),
              bytes(journal["pending_bytes"]).c_str());
  std::printf("journal at start    %llu records in %.2f s, %s read\n",
              journal["recovered_records"].get<unsigned long long>(),
              journal["recovery_seconds"].get<double>(),
              bytes(journal.value("recovery_bytes", json(0))).c_str());
  std::printf("cache               %s of %s, hit rate %.1f %%, %llu damaged pages thrown away\n",
              bytes(cache["bytes"]).c_str(), bytes(cache["limit_bytes"]).c_str(),
              cache["hit_rate"].get<double>() * 100,
              cache["damaged_pages"].get<unsigned long long>());
  std::printf("fetched             %s in %llu chunks and %llu nodes\n",
              bytes(s["fetched"]["bytes"]).c_str(),
              s["fetched"]["chunks"].get<unsigned long long>(),
              s["fetched"]["nodes"].get<unsigned long long>());
  if (s["fetched"]["waiting"].get<std::uint64_t>() != 0) {
    std::printf("waiting             %llu reads wait for the server\n",
                s["fetched"]["waiting"].get<unsigned long long>());
  }
  if (ready.contains("pages_mapped")) {
    std::printf("offline-ready       %s (%llu of %llu pages are here%s%s)\n",
                yes(ready["ready"].get<bool>()), ready["pages_present"].get<unsigned long long>(),
                ready["pages_mapped"].get<unsigned long long>(),
                ready["tree_complete"].get<bool>() ? "" : ", and not the whole tree",
                ready["verified"].get<bool>() ? ", each opened and checked" : "");
  }
  if (!s["session"]["trouble"].get<std::string>().empty())
    std::printf("login               %s\n", s["session"]["trouble"].get<std::string>().c_str());
  if (!s["write_back"]["trouble"].get<std::string>().empty()) {
    std::printf("write-back          %s\n", s["write_back"]["trouble"].get<std::string>().c_str());
  }
  std::printf("safe to switch off  %s\n", yes(s["safe_to_switch_off"].get<bool>()));
}

int say(const Settings& settings, const dims::Result<dims::ldim::Said>& said) {
  if (!said.ok()) {
    const std::string code(dims::error_code_name(said.error().code));
    return fail(settings, exit_code_of(code), code, said.error().message, said.error().hint);
  }
  std::printf("%s\n", settings.json_output() ? said->json.c_str() : said->text.c_str());
  return 0;
}

// The folder of an LDIM that does not run, looked at from here.
int check_closed(const Settings& settings, const std::string& key_path) {
  const auto checked =
      dims::ldim::check_folder(dims::io::posix_file_system(), settings.cache, key_path, true);
  if (!checked.ok()) {
    const std::string code(dims::error_code_name(checked.error().code));
    return fail(settings, exit_code_of(code), code, checked.error().message, checked.error().hint);
  }
  const json report = json::parse(checked->report);
  if (settings.json_output()) {
    std::cout << report.dump(2) << "\n";
  } else {
    for (const json& one : report["findings"]) {
      std::printf("%-8s %s: %s (%s)\n", one["severity"].get<std::string>().c_str(),
                  one["where"].get<std::string>().c_str(), one["text"].get<std::string>().c_str(),
                  one["todo"].get<std::string>().c_str());
    }
    std::printf("%s: %s\n", settings.cache.c_str(),
                checked->clean ? "whole" : "not everything is in order");
  }
  return checked->clean ? 0 : kExitFindings;
}

int salvage_closed(const Settings& settings, const std::string& key_path) {
  const auto done =
      dims::ldim::salvage_folder(dims::io::posix_file_system(), settings.cache, key_path, true);
  if (!done.ok()) {
    const std::string code(dims::error_code_name(done.error().code));
    return fail(settings, exit_code_of(code), code, done.error().message, done.error().hint);
  }
  const json report = json::parse(*done);
  if (settings.json_output()) {
    std::cout << report.dump(2) << "\n";
  } else if (report.contains("damage")) {
    std::printf(
        "%s\nsalvaged: %llu writes in %llu epochs, up to epoch %llu; at least %llu records behind "
        "the damage are lost\nthe damaged journal is kept as %s\nthe next start stores what was "
        "salvaged as a branch\n",
        report["damage"].get<std::string>().c_str(), report["writes"].get<unsigned long long>(),
        report["epochs"].get<unsigned long long>(), report["last_epoch"].get<unsigned long long>(),
        report["lost_writes"].get<unsigned long long>(), report["kept"].get<std::string>().c_str());
  } else {
    std::printf("an interrupted salvage was completed\n");
  }
  return 0;
}

int renew_running(const Settings& settings, const std::string& passphrase) {
  const auto nothing = [](const json&) {};
  json begun;
  if (const int rc = Client(settings, true).call({{"command", "renew-begin"}}, begun, nothing);
      rc != 0)
    return rc;
  const auto answer = dims::ldim::answer_renewal(begun, passphrase);
  if (!answer.ok()) {
    const std::string code(dims::error_code_name(answer.error().code));
    return fail(settings, exit_code_of(code), code, answer.error().message, answer.error().hint);
  }
  json done;
  if (const int rc = Client(settings, true).call(*answer, done, nothing); rc != 0) return rc;
  if (settings.json_output())
    std::printf("%s\n", done.dump(2).c_str());
  else
    std::printf("logged in again: the disk has the newest keys\n");
  return 0;
}

// Lines "OFFSET COUNT" (sizes with suffixes are fine), # comments.
bool read_ranges(const std::string& path, json& ranges, std::string& problem) {
  std::ifstream in(path);
  if (!in) {
    problem = "cannot read " + path;
    return false;
  }
  ranges = json::array();
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream fields(line);
    std::string offset;
    std::string count;
    std::string rest;
    fields >> offset >> count;
    const auto a = dims::parse_size(offset);
    const auto b = dims::parse_size(count);
    if (!a.ok() || !b.ok() || (fields >> rest)) {
      problem = path + " line " + std::to_string(number) + " is not 'OFFSET COUNT'";
      return false;
    }
    ranges.push_back({*a, *b});
  }
  if (ranges.empty()) {
    problem = path + " holds no range";
    return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("ldim - look after the LDIM that serves a cache folder");
  app.require_subcommand(1);
  app.set_version_flag("--version", "ldim 0.1.0");
  Settings settings;
  app.add_option("-c,--cache", settings.cache, "Cache folder, as given to nbdkit")
      ->envname("LDIM_CACHE");
  app.add_option("-o,--output", settings.output, "plain or json")
      ->check(CLI::IsMember({"plain", "json"}));
  app.fallthrough();

  bool verify = false;
  bool wait = false;
  std::string timeout;
  std::string hold = "60s";
  bool resume = false;
  std::string list;
  auto* status = app.add_subcommand(
      "status", "Image, version, lease, journal, cache, offline-ready, safe-to-switch-off");
  status->add_flag("--verify", verify,
                   "Open and check every present page instead of looking it up");
  auto* sync = app.add_subcommand("sync", "Send everything written so far to the server");
  sync->add_flag("--wait", wait, "Return when the server has it");
  sync->add_option("--timeout", timeout, "Give up after this long (with --wait)");
  auto* quiesce = app.add_subcommand(
      "quiesce", "Hold requests and make everything durable, before a restart of nbdkit");
  quiesce->add_option("--hold", hold, "Requests go on by themselves after this long");
  quiesce->add_flag("--resume", resume, "Let requests go on now");
  auto* session = app.add_subcommand("session", "The session of this disk");
  session->require_subcommand(1);
  auto* session_end = session->add_subcommand(
      "end", "End the session: the next one starts on the image's newest version");
  auto* prefetch =
      app.add_subcommand("prefetch", "Fetch into the cache: everything, or the ranges of a list");
  prefetch->add_option("--list", list, "File with lines 'OFFSET COUNT'");
  auto* check = app.add_subcommand(
      "check", "Check a folder that is not in use; without --key, the cache of a running LDIM");
  std::string key_path;
  check->add_option("--key", key_path, "Key file, as given to nbdkit");

  auto* salvage = app.add_subcommand(
      "salvage",
      "Make a folder with a damaged journal usable: what can be proven becomes a branch");
  salvage->add_option("--key", key_path, "Key file, as given to nbdkit")->required();
  auto* renew = app.add_subcommand(
      "renew", "Log in again for the running disk: the newest keys, more time; no guest notices");
  std::string passphrase;
  renew->add_option("--passphrase", passphrase, "- (asked), +FILE, -FD");
  dims::ldim::LoginCommand login;
  dims::ldim::add_login_commands(app, login);

  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked) {  // --help, --version
    return app.exit(asked);
  } catch (const CLI::ParseError& e) {
    return fail(settings, kExitUsage, "invalid-argument", dims::command_line_error(app, e),
                "see 'ldim --help'");
  }

  if (login) return say(settings, login());
  if (settings.cache.empty()) {
    return fail(settings, kExitUsage, "invalid-argument", "no cache folder is named",
                "use --cache DIR or the variable LDIM_CACHE");
  }
  if (*renew) return renew_running(settings, passphrase);
  if (*check && !key_path.empty()) return check_closed(settings, key_path);
  if (*salvage) return salvage_closed(settings, key_path);
  Client client(settings);
  json request;
  json result;
  const bool to_person = !settings.json_output() && ::isatty(STDERR_FILENO) != 0;
  const auto progress = [&](const json& answer) {
    if (!to_person) return;
    if (answer.contains("pages_total")) {
      const double total = answer["pages_total"].get<double>();
      std::fprintf(stderr, "\rprefetch %5.1f %%",
                   total == 0 ? 100.0 : 100.0 * answer["pages_done"].get<double>() / total);
    } else if (answer.contains("waiting")) {
      std::fprintf(stderr, "\r%s", answer["waiting"].get<std::string>().c_str());
    }
  };
  if (*status) {
    request = {{"command", "status"}, {"verify", verify}};
  } else if (*sync) {
    request = {{"command", "sync"}, {"wait", wait}};
    if (!timeout.empty()) {
      const auto longest = dims::parse_duration(timeout);
      if (!longest.ok())
        return fail(settings, kExitUsage, "invalid-argument", longest.error().message,
                    longest.error().hint);
      request["longest_ms"] = static_cast<std::uint64_t>(longest->count());
    }
  } else if (*quiesce) {
    const auto held = dims::parse_duration(hold);
    if (!held.ok())
      return fail(settings, kExitUsage, "invalid-argument", held.error().message,
                  held.error().hint);
    request = resume ? json{{"command", "resume"}}
                     : json{{"command", "quiesce"},
                            {"hold_ms", static_cast<std::uint64_t>(held->count())}};
  } else if (*session_end) {
    request = {{"command", "session-end"}};
  } else if (*prefetch) {
    request = {{"command", "prefetch"}};
    std::string problem;
    json ranges;
    if (!list.empty()) {
      if (!read_ranges(list, ranges, problem))
        return fail(settings, kExitUsage, "invalid-argument", problem, "");
      request["ranges"] = ranges;
    }
  } else if (*check) {
    request = {{"command", "check"}};
  }
  const int rc = client.call(request, result, progress);
  if (to_person && (*prefetch || (*sync && wait))) std::fprintf(stderr, "\n");
  if (rc != 0) return rc;
  if (settings.json_output()) {
    std::cout << result.dump(2) << "\n";
  } else if (*status) {
    print_status(result);
  } else if (*sync) {
    std::printf("epoch %llu is %s\n", result["epoch"].get<unsigned long long>(),
                result["committed"].get<bool>() ? "on the server" : "on its way");
  } else if (*quiesce) {
    std::printf(resume ? "requests go on\n"
                       : "quiesced: everything is durable, requests are held\n");
  } else if (*session_end) {
    std::printf(
        result.value("all_sent", true)
            ? "session ended\n"
            : "session ended; not everything is on the server: it stays in the cache folder, "
              "and the next session here sends it\n");
  } else if (*prefetch) {
    std::printf("%llu pages are here\n", result["pages_done"].get<unsigned long long>());
  } else if (*check) {
    std::printf("cache: %llu damaged objects thrown away\n",
                result["cache"]["damaged_objects"].get<unsigned long long>());
  }
  return 0;
}
