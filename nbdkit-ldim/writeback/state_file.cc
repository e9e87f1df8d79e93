#include "nbdkit-ldim/writeback/state_file.h"

#include "common/base/wire.h"
#include "common/crypto/aead.h"
#include "common/crypto/hash.h"

namespace dims::ldim {
namespace {

constexpr std::uint32_t kMagic = 0x3154534c;  // "LST1"
constexpr std::uint32_t kFormat = 1;
constexpr std::uint32_t kFormatOnBranch = 2;  // the home image's version stands at the end
constexpr std::size_t kMaxBytes = 64 * kKiB;

std::string text_of(ByteView bytes) { return std::string(as_text(bytes)); }

}  // namespace

Bytes encode_state(const LdimState& s) {
  const bool on_home = s.home_base.is_zero() || s.home_base == s.base;
  Bytes out;
  Writer w(out);
  w.u32(kMagic);
  w.u32(on_home ? kFormat : kFormatOnBranch);
  w.string(as_bytes(s.image_name));
  w.id(s.home_image);
  w.id(s.image);
  w.string(as_bytes(s.branch_name));
  w.id(s.planned_branch);
  w.string(as_bytes(s.planned_name));
  w.id(s.session);
  w.string(as_bytes(s.mode));
  w.u8(s.session_open ? 1 : 0);
  w.string(as_bytes(s.boot_id));
  w.id(s.base);
  w.string(s.base_record);
  w.u64(s.image_bytes);
  w.u16(s.tree.leaf_pages);
  w.u16(s.tree.fanout);
  w.u32(s.tree.chunk_mean_bytes);
  w.id(s.committed.journal);
  w.u64(s.committed.epoch);
  w.id(s.committed.digest);
  if (!on_home) {
    w.id(s.home_base);
    w.u64(s.home_sequence);
  }
  return out;
}

Result<LdimState> decode_state(ByteView bytes) {
  Reader r(bytes);
  const auto corrupt = [] {
    return make_error(
        ErrorCode::kCorrupt, "the state file of the cache folder is damaged",
        "unsent writes are safe in the journal; see ldim(1), 'When the state file is damaged'");
  };
  if (r.u32() != kMagic) return corrupt();
  const std::uint32_t kind = r.u32();
  if (kind != kFormat && kind != kFormatOnBranch) {
    return make_error(ErrorCode::kUnsupported, "the state file has an unknown format",
                      "update this program");
  }
  LdimState s;
  s.image_name = text_of(r.string());
  s.home_image = r.id<ImageId>();
  s.image = r.id<ImageId>();
  s.branch_name = text_of(r.string());
  s.planned_branch = r.id<ImageId>();
  s.planned_name = text_of(r.string());
  s.session = r.id<SessionId>();
  s.mode = text_of(r.string());
  s.session_open = r.u8() != 0;
  s.boot_id = text_of(r.string());
  s.base = r.id<VersionId>();
  const ByteView record = r.string();
  s.base_record.assign(record.begin(), record.end());
  s.image_bytes = r.u64();
  s.tree.leaf_pages = r.u16();
  s.tree.fanout = r.u16();
  s.tree.chunk_mean_bytes = r.u32();
  s.committed.journal = r.id<JournalId>();
  s.committed.epoch = r.u64();
  s.committed.digest = r.id<Digest>();
  if (kind == kFormatOnBranch) {
    s.home_base = r.id<VersionId>();
    s.home_sequence = r.u64();
  } else if (const auto base = format::decode_version(s.base_record, false);
             base.ok() && base->image == s.home_image) {
    s.home_base = s.base;
    s.home_sequence = base->sequence;
  }
  if (!r.at_end()) return corrupt();
  DIMS_TRY(format::check_parameters(s.tree));
  return s;
}

StateFile::StateFile(io::FileSystem& fs, std::string path, const Secret32& key,
                     const MachineId& machine, Random& random)
    : fs_(fs), path_(std::move(path)), key_(key), random_(random) {
  Writer w(ad_);
  w.raw(as_bytes("dims/ldim-state/1"));
  w.id(machine);
}

Result<std::optional<LdimState>> StateFile::load() {
  DIMS_ASSIGN(const bool there, fs_.exists(path_));
  if (!there) return std::optional<LdimState>{};
  DIMS_ASSIGN(const Bytes sealed, io::read_file(fs_, path_, kMaxBytes));
  const auto opened = crypto::unwrap(key_, ad_, sealed);
  if (!opened) {
    return make_error(
        ErrorCode::kCorrupt,
        "the state file " + path_ + " is damaged or was copied from another machine",
        "unsent writes are safe in the journal; see ldim(1), 'When the state file is damaged'");
  }
  DIMS_ASSIGN(LdimState state, decode_state(*opened));
  const MutexLock lock(mutex_);
  current_ = state;
  return std::optional<LdimState>{std::move(state)};
}

Status StateFile::store(const LdimState& state) {
  const MutexLock lock(mutex_);
  return store_locked(state);
}

Status StateFile::update(const std::function<void(LdimState&)>& change) {
  const MutexLock lock(mutex_);
  LdimState state = current_;
  change(state);
  return store_locked(state);
}

Status StateFile::store_locked(const LdimState& state) {
  const Bytes sealed = crypto::wrap(key_, ad_, encode_state(state), random_);
  DIMS_TRY(io::replace_file(fs_, path_, sealed));
  current_ = state;
  return ok_status();
}

LdimState StateFile::current() const {
  const MutexLock lock(mutex_);
  return current_;
}

}  // namespace dims::ldim
