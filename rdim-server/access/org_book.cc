#include "rdim-server/access/org_book.h"

#include <algorithm>
#include <cstdio>

#include "common/base/wire.h"

namespace dims::access {
namespace {

constexpr const char* kPrefix = "org/log/";
constexpr std::size_t kRowsAtOnce = 256;

std::string row_key(std::uint64_t seq) {
  char digits[24];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(seq));
  return std::string(kPrefix) + digits;
}

Bytes encode_rows(const std::vector<Bytes>& records) {
  Bytes out;
  Writer w(out);
  w.u32(static_cast<std::uint32_t>(records.size()));
  for (const Bytes& record : records) w.string(record);
  return out;
}

Status decode_rows(ByteView bytes, std::vector<Bytes>& out) {
  Reader r(bytes);
  const std::uint32_t count = r.u32();
  for (std::uint32_t i = 0; i < count && r.ok(); ++i) {
    const ByteView record = r.string();
    out.emplace_back(record.begin(), record.end());
  }
  // A log without a record would be no organisation, and its server one person's.
  if (count != 0 && r.at_end()) return ok_status();
  return make_error(ErrorCode::kCorrupt, "a row of the organisation's log is damaged",
                    "restore the store from its backup");
}

// The state after one more record; from nothing, the first.
Status step(std::optional<trust::OrgState>& state, const trust::LogRecord& record) {
  if (state) return state->apply(record);
  DIMS_ASSIGN(state, trust::OrgState::begin(record.org, record));
  return ok_status();
}

}  // namespace

Result<std::unique_ptr<OrgBook>> OrgBook::open(contract::RefStore& refs, Clock& clock) {
  std::unique_ptr<OrgBook> book(new OrgBook(refs, clock));
  DIMS_TRY(book->load());
  return book;
}

Status OrgBook::load() {
  std::string after;
  std::optional<trust::OrgState> state;
  for (;;) {
    DIMS_ASSIGN(const auto rows, refs_.list(kPrefix, after, kRowsAtOnce));
    for (const auto& [key, row] : rows) {
      const std::size_t first = records_.size();
      if (key != row_key(first)) {
        return make_error(ErrorCode::kCorrupt,
                          "the organisation's log lacks record " + std::to_string(first),
                          "restore the store from its backup");
      }
      DIMS_TRY(decode_rows(row.value, records_));
      for (std::size_t i = first; i < records_.size(); ++i) {
        DIMS_ASSIGN(const trust::LogRecord record, trust::decode_record(records_[i]));
        DIMS_TRY(step(state, record));
      }
    }
    if (rows.size() < kRowsAtOnce) break;
    after = rows.back().first;
  }
  if (state) state_ = std::make_unique<trust::OrgState>(std::move(*state));
  return ok_status();
}

bool OrgBook::exists() const {
  std::shared_lock lock(mutex_);
  return state_ != nullptr;
}

OrgId OrgBook::org() const {
  std::shared_lock lock(mutex_);
  return state_ ? state_->org() : OrgId{};
}

trust::Position OrgBook::position() const {
  std::shared_lock lock(mutex_);
  return state_ ? state_->position() : trust::Position{};
}

std::uint64_t OrgBook::size() const {
  std::shared_lock lock(mutex_);
  return records_.size();
}

Result<trust::Position> OrgBook::begin(const std::vector<Bytes>& records, const Also& also) {
  const std::lock_guard writing(writing_);
  if (exists()) {
    return make_error(ErrorCode::kAlreadyExists, "this server has an organisation already",
                      "log in to it");
  }
  return add(std::nullopt, records, also);
}

Result<trust::Position> OrgBook::append(const trust::Position& expected,
                                        const std::vector<Bytes>& records, const Also& also) {
  const std::lock_guard writing(writing_);
  std::optional<trust::OrgState> next;
  {
    std::shared_lock lock(mutex_);
    if (state_) next = *state_;
  }
  if (!next) return make_error(ErrorCode::kNotFound, "this server has no organisation");
  if (!(next->position() == expected)) {
    if (const auto end = end_of(expected, records)) return *end;
    return make_error(
        ErrorCode::kConflict,
        "the organisation's log has moved on to record " + std::to_string(next->position().seq),
        "read it and try again");
  }
  return add(std::move(next), records, also);
}

std::optional<trust::Position> OrgBook::end_of(const trust::Position& before,
                                               const std::vector<Bytes>& records) const {
  std::shared_lock lock(mutex_);
  const std::uint64_t first = before.seq + 1;
  if (records.empty() || before.seq >= records_.size() ||
      records.size() > records_.size() - first || !(state_->hash_at(before.seq) == before.hash) ||
      !std::equal(records.begin(), records.end(),
                  records_.begin() + static_cast<std::ptrdiff_t>(first)))
    return std::nullopt;
  const std::uint64_t last = before.seq + records.size();
  return trust::Position{last, state_->hash_at(last)};
}

Result<trust::Position> OrgBook::add(std::optional<trust::OrgState> next,
                                     const std::vector<Bytes>& records, const Also& also) {
  if (records.empty()) return make_error(ErrorCode::kInvalidArgument, "no record was sent");
  const auto now_unix_s = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(clock_.wall()).count());
  for (const Bytes& bytes : records) {
    DIMS_ASSIGN(const trust::LogRecord record, trust::decode_record(bytes));
    // Nobody can check it later, and the expiry of a join line hangs on it.
    DIMS_TRY(trust::check_record_time(record, now_unix_s));
    DIMS_TRY(step(next, record));
  }
  Beside beside;
  if (also) {
    DIMS_ASSIGN(beside, also(*next));
  }
  beside.rows.push_back({row_key(size()), encode_rows(records), 0});
  DIMS_TRY(refs_.put_all(beside.rows));
  trust::Position position = next->position();
  {
    std::unique_lock lock(mutex_);
    state_ = std::make_unique<trust::OrgState>(std::move(*next));
    records_.insert(records_.end(), records.begin(), records.end());
  }
  if (beside.stored) beside.stored();
  announce();
  return position;
}

std::vector<Bytes> OrgBook::read(std::uint64_t seq, std::size_t bytes_max) const {
  std::shared_lock lock(mutex_);
  std::vector<Bytes> out;
  std::size_t bytes = 0;
  for (std::uint64_t i = seq; i < records_.size(); ++i) {
    if (!out.empty() && bytes + records_[i].size() > bytes_max) break;
    bytes += records_[i].size();
    out.push_back(records_[i]);
  }
  return out;
}

std::shared_ptr<void> OrgBook::on_append(std::function<void()> callback) {
  auto listener = std::make_shared<std::function<void()>>(std::move(callback));
  const std::lock_guard lock(listeners_mutex_);
  std::erase_if(listeners_, [](const auto& weak) { return weak.expired(); });
  listeners_.push_back(listener);
  return listener;
}

void OrgBook::announce() {
  std::vector<std::shared_ptr<std::function<void()>>> listeners;
  {
    const std::lock_guard lock(listeners_mutex_);
    for (const auto& weak : listeners_) {
      if (auto listener = weak.lock()) listeners.push_back(std::move(listener));
    }
  }
  for (const auto& listener : listeners) (*listener)();
}

}  // namespace dims::access
