#include "common/client/org_folder.h"

#include <algorithm>

#include "common/base/wire.h"
#include "common/crypto/hash.h"
#include "common/io/file_turn.h"

namespace dims::client {
namespace {

constexpr std::uint32_t kMagic = 0x314f4744;  // "DGO1"
constexpr std::size_t kMaxBytes = 64 * kMiB;
constexpr std::size_t kCheckBytes = 32;

}  // namespace

Bytes encode_org(const KnownOrg& org) {
  Bytes out;
  Writer w(out);
  w.u32(kMagic);
  w.u32(1);
  w.string(as_bytes(org.server));
  w.id(org.org);
  w.u32(static_cast<std::uint32_t>(org.records.size()));
  for (const Bytes& record : org.records) w.string(record);
  w.id(crypto::sha256(out));
  return out;
}

Result<KnownOrg> decode_org(ByteView bytes, const std::string& path) {
  const auto corrupt = [&] {
    return make_error(ErrorCode::kCorrupt, path + " is damaged",
                      "restore it, or remove it and log in again with --server ADDRESS");
  };
  if (bytes.size() < kCheckBytes) return corrupt();
  const ByteView body = bytes.first(bytes.size() - kCheckBytes);
  const Digest check = crypto::sha256(body);
  if (!crypto::equal_constant_time(check.view(), bytes.last(kCheckBytes))) return corrupt();
  Reader r(body);
  if (r.u32() != kMagic) return corrupt();
  if (r.u32() != 1) {
    return make_error(ErrorCode::kUnsupported, path + " has an unknown format",
                      "update this program");
  }
  KnownOrg out;
  out.server = std::string(as_text(r.string()));
  out.org = r.id<OrgId>();
  const std::uint32_t count = r.u32();
  for (std::uint32_t i = 0; i < count && r.ok(); ++i) {
    const ByteView record = r.string();
    out.records.emplace_back(record.begin(), record.end());
  }
  if (!r.at_end()) return corrupt();
  return out;
}

Result<std::optional<KnownOrg>> OrgFolder::load() const {
  const std::string path = file("organisation");
  DIMS_ASSIGN(const bool there, fs_.exists(path));
  if (!there) return std::optional<KnownOrg>{};
  DIMS_ASSIGN(const Bytes bytes, io::read_file(fs_, path, kMaxBytes));
  DIMS_ASSIGN(KnownOrg org, decode_org(bytes, path));
  return std::optional<KnownOrg>{std::move(org)};
}

Status OrgFolder::save(const KnownOrg& org) const {
  return io::replace_file(fs_, file("organisation"), encode_org(org));
}

Status OrgFolder::keep(KnownOrg org) const {
  DIMS_ASSIGN(const auto turn, io::FileTurn::wait(file("organisation.lock")));
  DIMS_ASSIGN(auto now, load());
  if (now && now->org == org.org) {
    const std::size_t both = std::min(now->records.size(), org.records.size());
    const auto differ =
        std::mismatch(org.records.begin(), org.records.begin() + static_cast<std::ptrdiff_t>(both),
                      now->records.begin());
    if (differ.first != org.records.begin() + static_cast<std::ptrdiff_t>(both)) {
      return make_error(ErrorCode::kOtherHistory,
                        "the server's log of the organisation is not the one that " +
                            file("organisation") + " holds by now",
                        "the server is not honest; ask your administrator");
    }
    if (now->records.size() > org.records.size()) org.records = std::move(now->records);
    if (now->server == org.server && org.records.size() == both) return ok_status();
  }
  return save(org);
}

Result<trust::OrgLog> read_log(AccessClient& access, const OrgId& org,
                               const std::vector<Bytes>& known) {
  if (known.empty()) {
    DIMS_ASSIGN(const LogPage page, access.get_log(0));
    return trust::OrgLog::open(org, page.records);
  }
  DIMS_ASSIGN(trust::OrgLog log, trust::OrgLog::open(org, known));
  // The last known record is read again, to see that it still is the same.
  DIMS_ASSIGN(const LogPage page, access.get_log(known.size() - 1));
  if (page.records.empty() || page.records.front() != known.back()) {
    return make_error(ErrorCode::kOtherHistory,
                      "the server's log of the organisation is not the one that is known here: "
                      "it lacks record " +
                          std::to_string(known.size() - 1) + " or shows another",
                      "the server was restored from an old copy, or is not honest; ask your "
                      "administrator");
  }
  DIMS_TRY(log.extend({page.records.begin() + 1, page.records.end()}));
  return log;
}

std::vector<Bytes> records_of(const trust::OrgLog& log) {
  std::vector<Bytes> out;
  for (std::uint64_t i = 0; i < log.size(); ++i) out.push_back(log.record(i));
  return out;
}

}  // namespace dims::client
