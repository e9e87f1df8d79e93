#include "nbdkit-ldim/disk/options.h"

#include <unistd.h>

#include <array>

#include "common/base/parse.h"
#include "nbdkit-ldim/cache/page_cache.h"

namespace dims::ldim {
namespace {

constexpr std::uint64_t kDisklessCacheBytes = 48 * kMiB;
constexpr std::uint64_t kDisklessJournalBytes = 256 * kMiB;
constexpr std::uint64_t kMinJournalBytes = 64 * kMiB;

Error bad(std::string_view name, std::string_view value, const std::string& takes) {
  return make_error(ErrorCode::kInvalidArgument,
                    std::string(name) + "=" + std::string(value) + " is not possible",
                    std::string(name) + " takes " + takes);
}

Status set_size(std::uint64_t& out, std::string_view name, std::string_view value) {
  const auto size = parse_size(value);
  if (!size.ok()) return bad(name, value, "a size, e.g. 512M or 20G");
  out = *size;
  return ok_status();
}

Status set_duration(std::chrono::milliseconds& out, std::string_view name, std::string_view value) {
  const auto duration = parse_duration(value);
  if (!duration.ok()) return bad(name, value, "a duration, e.g. 30s or 10m");
  out = *duration;
  return ok_status();
}

Status set_flag(bool& out, std::string_view name, std::string_view value) {
  if (value == "yes" || value == "on" || value == "true" || value == "1")
    out = true;
  else if (value == "no" || value == "off" || value == "false" || value == "0")
    out = false;
  else
    return bad(name, value, "yes or no");
  return ok_status();
}

Status set_write_back(DiskOptions& options, std::string_view value) {
  if (value == "eager") {
    options.write_back = WriteBackPolicy::kEager;
  } else if (value == "manual") {
    options.write_back = WriteBackPolicy::kManual;
  } else {
    const auto delay = parse_duration(value);
    if (!delay.ok()) return bad("write-back", value, "eager, manual or a delay such as 30s");
    options.write_back = WriteBackPolicy::kDelay;
    options.write_back_delay = *delay;
  }
  return ok_status();
}

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "machine";
  std::string clean;
  for (const char c : std::string(name.data())) {
    clean += (std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_') ? c : '-';
  }
  return clean.empty() ? "machine" : clean;
}

}  // namespace

const char kOptionsHelp[] =
    "server=HOST:PORT|unix:PATH  (required) the RDIM server; HOST:PORT#FINGERPRINT pins it\n"
    "image=NAME                  (required) the image to serve\n"
    "key=FILE                    key file made by 'rdim key new'; or log in with these:\n"
    "user=NAME                   a user of the organisation that this machine is enrolled with\n"
    "passphrase=-|+FILE|-FD      his passphrase: asked, of a file, of an open descriptor\n"
    "machine-dir=DIR             the enrolled machine's folder (default /var/lib/dims)\n"
    "cache=DIR|none              (required) folder for journal and cache; none: diskless\n"
    "cache-size=SIZE             limit of the cache (default 10G)\n"
    "journal-size=SIZE           limit of the journal of unsent writes (default 4G)\n"
    "mode=personal|shared|readonly  single writer (default), local writes dropped, no writes\n"
    "ack=journal|sent|received|committed  when a flush is answered (default journal)\n"
    "write-back=eager|manual|DELAY  when sealed epochs are sent (default eager)\n"
    "seal-after=DURATION         writes that the guest leaves unflushed are sealed after this "
    "(30s)\n"
    "session-grace=DURATION      a session outlives the loss of its client by this (default 10m)\n"
    "connect-wait=DURATION       how long to wait for the server at start (default 5s)\n"
    "lease=wait|hand-off|take-over  an image that another machine has: wait for a lease that ends\n"
    "                            (default), ask that machine to send and release, or take it in "
    "the end\n"
    "hand-off-wait=DURATION      how long that machine may be without sending anything (default "
    "1m)\n"
    "machine=NAME                this machine's name (default: host name)\n"
    "compress=yes|no             compress what is sent (default yes)\n"
    "fill=yes|no                 fetch the rest of the disk while the link is idle (default yes)\n"
    "read-ahead=yes|no           fetch ahead of sequential reads (default yes)\n"
    "other-history=accept        start although the server's history lacks the version known here";

std::string_view mode_name(SessionMode mode) {
  switch (mode) {
    case SessionMode::kPersonal:
      return "personal";
    case SessionMode::kShared:
      return "shared";
    case SessionMode::kReadOnly:
      return "readonly";
  }
  return "personal";
}

Status set_option(DiskOptions& options, std::string_view name, std::string_view value) {
  if (name == "server")
    options.server = value;
  else if (name == "user")
    options.user = value;
  else if (name == "machine-dir")
    options.machine_folder = value;
  else if (name == "image")
    options.image = value;
  else if (name == "key")
    options.key_path = value;
  else if (name == "cache")
    options.cache_folder = value;
  else if (name == "cache-size")
    return set_size(options.cache_bytes, name, value);
  else if (name == "journal-size")
    return set_size(options.journal_bytes, name, value);
  else if (name == "mode") {
    if (value == "personal")
      options.mode = SessionMode::kPersonal;
    else if (value == "shared")
      options.mode = SessionMode::kShared;
    else if (value == "readonly")
      options.mode = SessionMode::kReadOnly;
    else
      return bad(name, value, "personal, shared or readonly");
  } else if (name == "ack") {
    if (value == "journal")
      options.acknowledge = Acknowledge::kJournal;
    else if (value == "sent")
      options.acknowledge = Acknowledge::kSent;
    else if (value == "received")
      options.acknowledge = Acknowledge::kReceived;
    else if (value == "committed")
      options.acknowledge = Acknowledge::kCommitted;
    else
      return bad(name, value, "journal, sent, received or committed");
  } else if (name == "write-back") {
    return set_write_back(options, value);
  } else if (name == "lease") {
    if (value == "wait")
      options.lease = LeaseKeeper::LeaseAsk::kPlain;
    else if (value == "hand-off")
      options.lease = LeaseKeeper::LeaseAsk::kHandOff;
    else if (value == "take-over")
      options.lease = LeaseKeeper::LeaseAsk::kTakeOver;
    else
      return bad(name, value, "wait, hand-off or take-over");
  } else if (name == "seal-after") {
    return set_duration(options.seal_after, name, value);
  } else if (name == "session-grace") {
    return set_duration(options.session_grace, name, value);
  } else if (name == "connect-wait") {
    return set_duration(options.connect_wait, name, value);
  } else if (name == "hand-off-wait") {
    return set_duration(options.hand_off_wait, name, value);
  } else if (name == "machine") {
    if (value.empty() || value.size() > 64 ||
        value.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                "0123456789._-") != std::string_view::npos) {
      return bad(name, value, "1 to 64 letters, digits, '.', '_' or '-'");
    }
    options.machine_name = value;
  } else if (name == "compress") {
    return set_flag(options.compress, name, value);
  } else if (name == "fill") {
    return set_flag(options.fill, name, value);
  } else if (name == "read-ahead") {
    return set_flag(options.read_ahead, name, value);
  } else if (name == "other-history") {
    if (value != "accept") return bad(name, value, "accept");
    options.accept_other_history = true;
  } else {
    return make_error(ErrorCode::kNotFound, "unknown parameter '" + std::string(name) + "'",
                      "see 'nbdkit ldim --help' for the parameters");
  }
  return ok_status();
}

Status complete_options(DiskOptions& options) {
  const auto require = [](const std::string& value, const char* name) -> Status {
    if (!value.empty()) return ok_status();
    return make_error(ErrorCode::kInvalidArgument,
                      std::string("parameter ") + name + "= is missing",
                      "the plugin needs server=, image=, key= and cache=");
  };
  DIMS_TRY(require(options.server, "server"));
  DIMS_TRY(require(options.image, "image"));
  if (options.user.empty()) DIMS_TRY(require(options.key_path, "key"));
  if (!options.user.empty() && !options.key_path.empty()) {
    return make_error(ErrorCode::kInvalidArgument, "both user= and key= are given",
                      "use user= with an organisation, key= without one");
  }
  DIMS_TRY(require(options.cache_folder, "cache"));
  const auto address = parse_server(options.server);
  if (!address.ok()) return address.error().with_context("server");
  if (options.cache_folder == "none") {
    options.cache_folder.clear();
    options.fill = false;
    options.cache_bytes = std::min(options.cache_bytes, kDisklessCacheBytes);
    options.journal_bytes = std::min(options.journal_bytes, kDisklessJournalBytes);
    // Nothing here survives the process, so a flush means that the server has it.
    options.acknowledge = Acknowledge::kCommitted;
    if (options.write_back == WriteBackPolicy::kManual)
      options.write_back = WriteBackPolicy::kEager;
  }
  if (options.cache_bytes < PageCache::kMinLimitBytes) {
    return make_error(
        ErrorCode::kInvalidArgument,
        "cache-size " + format_size(options.cache_bytes) + " is too small to work with",
        "give at least " + format_size(PageCache::kMinLimitBytes));
  }
  if (options.journal_bytes < kMinJournalBytes) {
    return make_error(
        ErrorCode::kInvalidArgument,
        "journal-size " + format_size(options.journal_bytes) + " is too small to work with",
        "give at least " + format_size(kMinJournalBytes));
  }
  if (options.machine_name.empty()) options.machine_name = host_name();
  return ok_status();
}

}  // namespace dims::ldim
