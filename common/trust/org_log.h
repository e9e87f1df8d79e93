// The organisation's log as somebody holds it: its records, checked, and the pin that outlives the
// process.
//
// Client: keep a Pin; open() with it and what the server sends; a log that is shorter than the pin
// or says something else at its place is refused (kOtherHistory). extend() with later records.
// Server: open() what it stores without a pin, append() what callers send.
// Threads: one owner at a time. Ownership: holds its records. Units: seq numbers records from 0.
// Errors: those of decode_record() and OrgState. A refused record leaves the log as it was; of a
// batch, those before it stay.
// Durable: nothing here; whoever keeps records or pin writes them before he acts on them.
#pragma once

#include <memory>

#include "common/trust/org_state.h"

namespace dims::trust {

// What a client remembers of the log: public, and to be kept from changes.
struct Pin {
  OrgId org;
  Position position;
  friend bool operator==(const Pin&, const Pin&) = default;
};
Bytes encode_pin(const Pin& pin);  // 80 bytes, with a check sum
Result<Pin> decode_pin(ByteView bytes);

class OrgLog {
 public:
  // From all records since the first. `pin` nullptr: only the organisation is known (a server that
  // reads its own store, a newcomer whose join line has pinned the organisation).
  static Result<OrgLog> open(const OrgId& org, const std::vector<Bytes>& records,
                             const Pin* pin = nullptr);
  // Records that follow, in order. Already known ones are compared, not skipped in silence.
  Status extend(const std::vector<Bytes>& records);
  // One more. `expected` is where the sender believes to be: kConflict if the log is elsewhere.
  Status append(ByteView record, const Position& expected);

  const OrgState& state() const { return *state_; }
  Position position() const { return state_->position(); }
  Pin pin() const { return {state_->org(), state_->position()}; }
  std::uint64_t size() const { return records_.size(); }
  // The encoded record `seq`; seq < size().
  const Bytes& record(std::uint64_t seq) const { return records_[seq]; }

 private:
  std::unique_ptr<OrgState> state_;
  std::vector<Bytes> records_;
};

}  // namespace dims::trust
