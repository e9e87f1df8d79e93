#include "common/trust/org_log.h"

#include "common/base/wire.h"
#include "common/crypto/hash.h"

namespace dims::trust {
namespace {

constexpr std::uint32_t kMagic = 0x314e4950;  // "PIN1"

Error other_history(std::uint64_t seq, const std::string& what) {
  return make_error(ErrorCode::kOtherHistory,
                    "organisation log, record " + std::to_string(seq) + ": " + what,
                    "the server shows another log than before: it was rolled back or lies. Ask "
                    "your administrator before you go on");
}

}  // namespace

Bytes encode_pin(const Pin& pin) {
  Bytes out;
  Writer w(out);
  w.u32(kMagic);
  w.u32(1);
  w.id(pin.org);
  w.u64(pin.position.seq);
  w.id(pin.position.hash);
  w.raw(crypto::sha256(out).view().first(8));
  return out;
}

Result<Pin> decode_pin(ByteView bytes) {
  Reader r(bytes);
  Pin pin;
  const bool magic = r.u32() == kMagic;
  const std::uint32_t format = r.u32();
  pin.org = r.id<OrgId>();
  pin.position.seq = r.u64();
  pin.position.hash = r.id<Digest>();
  const std::size_t covered = r.position();
  const ByteView check = r.raw(8);
  if (!r.at_end() || !magic)
    return make_error(ErrorCode::kCorrupt, "log pin: not a pin, or cut short");
  if (format != 1)
    return make_error(ErrorCode::kUnsupported, "log pin of an unknown format",
                      "update this program");
  if (!crypto::equal_constant_time(crypto::sha256(bytes.first(covered)).view().first(8), check))
    return make_error(ErrorCode::kCorrupt, "log pin: its check sum is wrong");
  return pin;
}

Result<OrgLog> OrgLog::open(const OrgId& org, const std::vector<Bytes>& records, const Pin* pin) {
  if (records.empty())
    return make_error(pin == nullptr ? ErrorCode::kNotFound : ErrorCode::kOtherHistory,
                      "organisation log: it is empty");
  if (pin != nullptr && pin->org != org)
    return make_error(ErrorCode::kUntrusted, "organisation log: the pin is another organisation's");
  auto first = decode_record(records.front());
  if (!first.ok()) return first.error();
  auto state = OrgState::begin(org, *first);
  if (!state.ok()) return state.error();
  OrgLog log;
  log.state_ = std::make_unique<OrgState>(std::move(*state));
  log.records_.push_back(std::move(first->bytes));
  DIMS_TRY(log.extend({records.begin() + 1, records.end()}));
  if (pin != nullptr) {
    if (log.size() <= pin->position.seq)
      return other_history(pin->position.seq, "the log ends before it, and it was here before");
    if (log.state_->hash_at(pin->position.seq) != pin->position.hash)
      return other_history(pin->position.seq, "it is another one than before");
  }
  return log;
}

Status OrgLog::extend(const std::vector<Bytes>& records) {
  for (const Bytes& bytes : records) {
    auto record = decode_record(bytes);
    if (!record.ok()) return record.error();
    if (record->seq < size()) {
      if (state_->hash_at(record->seq) != record->hash)
        return other_history(record->seq, "it is another one than before");
      continue;
    }
    DIMS_TRY(state_->apply(*record));
    records_.push_back(std::move(record->bytes));
  }
  return ok_status();
}

Status OrgLog::append(ByteView bytes, const Position& expected) {
  if (expected != position()) {
    return make_error(
        ErrorCode::kConflict,
        "organisation log: it is at record " + std::to_string(position().seq) + " by now",
        "read the new records and try again");
  }
  auto record = decode_record(bytes);
  if (!record.ok()) return record.error();
  DIMS_TRY(state_->apply(*record));
  records_.push_back(std::move(record->bytes));
  return ok_status();
}

}  // namespace dims::trust
