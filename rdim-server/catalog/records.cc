#include "rdim-server/catalog/records.h"

#include <algorithm>

#include "common/base/wire.h"

namespace dims::catalog {
namespace {

constexpr std::uint32_t kImageMagic = 0x31474d49;    // "IMG1"
constexpr std::uint32_t kSessionMagic = 0x31534553;  // "SES1"
constexpr std::uint32_t kFormat = 1;
constexpr std::uint32_t kFormatWithUnsent = 2;  // of an image that has such machines
constexpr std::size_t kNameMax = 128;
constexpr std::size_t kMachineNameMax = 255;

Error damaged(const char* what) {
  return make_error(ErrorCode::kCorrupt, std::string("a record of the catalog is damaged: ") + what,
                    "restore the store from its backup");
}

void put_text(Writer& w, const std::string& text) { w.string(as_bytes(text)); }
std::string take_text(Reader& r) { return std::string(as_text(r.string())); }

Result<std::uint32_t> check_head(Reader& r, std::uint32_t magic, std::uint32_t newest,
                                 const char* what) {
  if (r.u32() != magic) return damaged(what);
  const std::uint32_t format = r.u32();
  if (format >= kFormat && format <= newest) return format;
  return make_error(ErrorCode::kUnsupported, std::string(what) + " record of an unknown format",
                    "use the version of rdim-server that wrote it");
}

bool name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-' || c == '/';
}

}  // namespace

Bytes encode_image(const ImageRecord& record) {
  Bytes out;
  Writer w(out);
  w.u32(kImageMagic);
  w.u32(record.unsent.empty() ? kFormat : kFormatWithUnsent);
  w.id(record.id);
  put_text(w, record.name);
  w.u64(record.image_bytes);
  w.u16(record.tree.leaf_pages);
  w.u16(record.tree.fanout);
  w.u32(record.tree.chunk_mean_bytes);
  w.id(record.domain);
  w.u32(static_cast<std::uint32_t>(record.base_domains.size()));
  for (const DomainId& domain : record.base_domains) w.id(domain);
  w.id(record.key_check);
  w.id(record.origin);
  put_text(w, record.conflict_of);
  w.u64(record.created_unix_ns);
  w.id(record.head);
  w.u64(record.head_sequence);
  w.u64(record.token);
  w.id(record.lease.lease);
  w.id(record.lease.machine);
  put_text(w, record.lease.machine_name);
  w.id(record.lease.session);
  w.u32(static_cast<std::uint32_t>(record.journals.size()));
  for (const JournalRecord& journal : record.journals) {
    w.id(journal.newest.journal);
    w.u64(journal.newest.epoch);
    w.id(journal.newest.digest);
    w.id(journal.version);
    w.u64(journal.sequence);
  }
  if (record.unsent.empty()) return out;
  w.u32(static_cast<std::uint32_t>(record.unsent.size()));
  for (const UnsentRecord& machine : record.unsent) {
    w.id(machine.machine);
    put_text(w, machine.machine_name);
    w.id(machine.session);
    w.u64(machine.unsent_bytes);
    w.u64(machine.since_unix_ns);
  }
  return out;
}

Result<ImageRecord> decode_image(ByteView bytes) {
  Reader r(bytes);
  DIMS_ASSIGN(const std::uint32_t format, check_head(r, kImageMagic, kFormatWithUnsent, "image"));
  ImageRecord record;
  record.id = r.id<ImageId>();
  record.name = take_text(r);
  record.image_bytes = r.u64();
  record.tree.leaf_pages = r.u16();
  record.tree.fanout = r.u16();
  record.tree.chunk_mean_bytes = r.u32();
  record.domain = r.id<DomainId>();
  for (std::uint32_t n = r.u32(); n > 0 && r.ok(); --n) {
    record.base_domains.push_back(r.id<DomainId>());
  }
  record.key_check = r.id<Digest>();
  record.origin = r.id<VersionId>();
  record.conflict_of = take_text(r);
  record.created_unix_ns = r.u64();
  record.head = r.id<VersionId>();
  record.head_sequence = r.u64();
  record.token = r.u64();
  record.lease.lease = r.id<LeaseId>();
  record.lease.machine = r.id<MachineId>();
  record.lease.machine_name = take_text(r);
  record.lease.session = r.id<SessionId>();
  for (std::uint32_t n = r.u32(); n > 0 && r.ok(); --n) {
    JournalRecord journal;
    journal.newest.journal = r.id<JournalId>();
    journal.newest.epoch = r.u64();
    journal.newest.digest = r.id<Digest>();
    journal.version = r.id<VersionId>();
    journal.sequence = r.u64();
    record.journals.push_back(journal);
  }
  for (std::uint32_t n = format == kFormatWithUnsent ? r.u32() : 0; n > 0 && r.ok(); --n) {
    UnsentRecord machine;
    machine.machine = r.id<MachineId>();
    machine.machine_name = take_text(r);
    machine.session = r.id<SessionId>();
    machine.unsent_bytes = r.u64();
    machine.since_unix_ns = r.u64();
    record.unsent.push_back(machine);
  }
  if (!r.at_end()) return damaged("image, length");
  return record;
}

Bytes encode_session(const SessionRecord& record) {
  Bytes out;
  Writer w(out);
  w.u32(kSessionMagic);
  w.u32(kFormat);
  w.id(record.machine);
  put_text(w, record.machine_name);
  put_text(w, record.mode);
  w.id(record.base);
  w.id(record.journal);
  w.u64(record.opened_unix_ns);
  return out;
}

Result<SessionRecord> decode_session(ByteView bytes) {
  Reader r(bytes);
  DIMS_ASSIGN([[maybe_unused]] const std::uint32_t format,
              check_head(r, kSessionMagic, kFormat, "session"));
  SessionRecord record;
  record.machine = r.id<MachineId>();
  record.machine_name = take_text(r);
  record.mode = take_text(r);
  record.base = r.id<VersionId>();
  record.journal = r.id<JournalId>();
  record.opened_unix_ns = r.u64();
  if (!r.at_end()) return damaged("session, length");
  return record;
}

std::string image_key(const ImageId& id) { return kImagePrefix + id.hex(); }
std::string name_key(const std::string& name) { return "name/" + name; }
std::string session_prefix(const ImageId& image) { return "session/" + image.hex() + "/"; }
std::string session_key(const ImageId& image, const SessionId& session) {
  return session_prefix(image) + session.hex();
}
std::string version_key(const VersionId& id) { return kVersionPrefix + id.hex(); }
std::string gone_key(const VersionId& id) { return "gone/" + id.hex(); }
std::string retention_key(const ImageId& image) { return "retention/" + image.hex(); }

Status check_image_name(const std::string& name) {
  bool good = !name.empty() && name.size() <= kNameMax && name.front() != '/' &&
              name.back() != '/' && std::all_of(name.begin(), name.end(), name_char);
  for (std::size_t i = 0; good && i < name.size(); ++i) {
    const bool starts = i == 0 || name[i - 1] == '/';
    if (starts && (name[i] == '.' || name[i] == '/' || name[i] == '-')) good = false;
  }
  if (good) return ok_status();
  std::string shown;
  for (const char c : name.substr(0, 64)) shown += c >= ' ' && c < 127 ? c : '?';
  return make_error(ErrorCode::kInvalidArgument, "'" + shown + "' is no name for an image",
                    "1 to 128 letters, digits, '.', '_', '-'; parts may be joined by '/', and none "
                    "begins with '.' or '-'");
}

Status check_machine_name(const std::string& name) {
  const bool good =
      name.size() <= kMachineNameMax && std::all_of(name.begin(), name.end(), [](char c) {
        return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f;
      });
  if (good) return ok_status();
  return make_error(ErrorCode::kInvalidArgument,
                    "the machine's name is longer than 255 bytes or has control characters");
}

}  // namespace dims::catalog
