#include <algorithm>

#include "rdim-server/catalog/catalog.h"

namespace dims::catalog {
namespace {

constexpr int kAttemptsMax = 8;
constexpr std::size_t kSessionsAtOnce = 256;

Status check_request(const contract::SessionRequest& request) {
  DIMS_TRY(check_machine_name(request.machine_name));
  if (request.session.is_zero()) {
    return make_error(ErrorCode::kInvalidArgument, "a session needs an id");
  }
  if (request.mode != "personal" && request.mode != "shared" && request.mode != "readonly") {
    return make_error(ErrorCode::kInvalidArgument, "'" + request.mode + "' is no mode of a session",
                      "personal, shared or readonly");
  }
  return ok_status();
}

}  // namespace

Result<contract::SessionAnswer> Catalog::open_session(const contract::SessionRequest& request) {
  DIMS_TRY(check_request(request));
  DIMS_ASSIGN(const ImagePtr image, live(request.image));
  std::lock_guard lock(image->mutex);
  if (image->removed) return make_error(ErrorCode::kNotFound, "the image was removed");
  SessionRecord record;
  record.machine = request.machine;
  record.machine_name = request.machine_name;
  record.mode = request.mode;
  record.base = request.base.is_zero() ? image->record.head : request.base;
  record.journal = request.journal;
  record.opened_unix_ns = static_cast<std::uint64_t>(clock_.wall().count());
  // Until the pin is durable no collection lets the base go.
  const auto hold = hold_version(record.base);
  if (!hold.ok()) return hold.error();
  if (!request.base.is_zero()) {
    const auto base = load_version(request.base);
    if (!base.ok() && base.error().code == ErrorCode::kNotFound) {
      return make_error(ErrorCode::kOtherHistory,
                        "version " + request.base.short_hex() +
                            ", on which the session stands, is "
                            "not known here: the server was restored, or is another one",
                        "its unsent writes can be stored as a branch");
    }
    if (!base.ok()) return base.error();
  }
  // The pin is durable before the answer: the session may live long on what it was told.
  const std::string key = session_key(request.image, request.session);
  Status written;
  for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
    DIMS_ASSIGN(const auto current, refs_.get(key));
    const auto put = refs_.put(key, encode_session(record), current ? current->revision : 0);
    written = put.ok() ? ok_status() : Status(put.error());
    if (written.ok() || written.error().code != ErrorCode::kConflict) break;
  }
  DIMS_TRY(written);
  // A journal has one session at a time. Its former one is over, also if it ended without us, and
  // its base was kept for what the journal held: the new one's is.
  if (!request.journal.is_zero()) {
    DIMS_TRY(close_sessions(
        request.image,
        [&](const SessionRecord& other) {
          return other.journal == request.journal && other.machine == request.machine;
        },
        request.session));
  }
  DIMS_TRY(note_report(*image, request));
  contract::SessionAnswer answer;
  answer.image = info_of(*image);
  if (!request.journal.is_zero()) {
    const auto& journals = image->record.journals;
    const auto found = std::find_if(journals.begin(), journals.end(), [&](const auto& journal) {
      return journal.newest.journal == request.journal;
    });
    if (found != journals.end()) {
      answer.newest_of_journal = found->newest;
      answer.newest_version = found->version;
    }
  }
  return answer;
}

Status Catalog::close_session(const ImageId& id, const SessionId& session) {
  const std::string key = session_key(id, session);
  const auto current = refs_.get(key);
  if (!current.ok()) return current.error();
  if (!*current) return ok_status();  // closed before, or the answer was lost
  return refs_.remove(key, (*current)->revision);
}

Status Catalog::close_sessions(const ImageId& id,
                               const std::function<bool(const SessionRecord&)>& which,
                               const SessionId& but) {
  const std::string prefix = session_prefix(id);
  std::string after;
  for (;;) {
    DIMS_ASSIGN(const auto rows, refs_.list(prefix, after, kSessionsAtOnce));
    for (const auto& [key, value] : rows) {
      after = key;
      const auto session = decode_session(value.value);
      if (key == session_key(id, but) || !session.ok() || !which(*session)) continue;
      const Status removed = refs_.remove(key, value.revision);
      if (!removed.ok() && removed.error().code != ErrorCode::kConflict) return removed;
    }
    if (rows.size() < kSessionsAtOnce) return ok_status();
  }
}

Result<MachineId> Catalog::machine_of_session(const ImageId& image, const SessionId& session) {
  DIMS_ASSIGN(const auto row, refs_.get(session_key(image, session)));
  if (!row) return MachineId{};
  DIMS_ASSIGN(const SessionRecord record, decode_session(row->value));
  return record.machine;
}

}  // namespace dims::catalog
