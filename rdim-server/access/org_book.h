// OrgBook: the organisation's log as this server keeps it. The server can make no record; it
// appends what trust::OrgState takes and gives back what it has.
//
//   org/log/<seq>   records from this number on, as they were appended together (length-prefixed)
//
// Threads: thread-safe; readers run together. Ownership: store and clock outlive it. Units: seq
// numbers records from 0. Errors: of append(): kConflict when the log is elsewhere,
// kInvalidArgument when a record's time is not about now, and those of OrgState; a refused record
// changes nothing, and neither do those beside it. Durable on return: what was appended and what
// belongs to it, all of it or nothing, whenever the server dies.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <shared_mutex>

#include "common/base/clock.h"
#include "common/contract/ref_store.h"
#include "common/trust/org_state.h"

namespace dims::access {

class OrgBook {
 public:
  static Result<std::unique_ptr<OrgBook>> open(contract::RefStore& refs, Clock& clock);

  bool exists() const;
  // Zero without an organisation.
  OrgId org() const;
  trust::Position position() const;
  std::uint64_t size() const;
  // Runs it on the state, which changes meanwhile for nobody. Precondition: exists().
  template <typename Body>
  auto with(Body body) const {
    std::shared_lock lock(mutex_);
    return body(static_cast<const trust::OrgState&>(*state_));
  }

  // What belongs to the records and is written with them, in the same step.
  struct Beside {
    std::vector<contract::RefPut> rows;
    std::function<void()> stored;  // once they are; may be empty
  };
  // Asked with the state as it would be; what it refuses is not appended.
  using Also = std::function<Result<Beside>(const trust::OrgState& next)>;
  // The first records. kAlreadyExists when there is an organisation.
  Result<trust::Position> begin(const std::vector<Bytes>& records, const Also& also);
  // The very same records once more, whose answer was lost: where they end; nothing is done.
  Result<trust::Position> append(const trust::Position& expected, const std::vector<Bytes>& records,
                                 const Also& also = {});
  // Records from `seq` on, at most bytes_max of them but at least one if there is one.
  std::vector<Bytes> read(std::uint64_t seq, std::size_t bytes_max) const;

  // Called after every append, by the appender's thread. Ends with the returned object.
  std::shared_ptr<void> on_append(std::function<void()> callback);

 private:
  OrgBook(contract::RefStore& refs, Clock& clock) : refs_(refs), clock_(clock) {}
  Status load();
  std::optional<trust::Position> end_of(const trust::Position& before,
                                        const std::vector<Bytes>& records) const;
  Result<trust::Position> add(std::optional<trust::OrgState> next,
                              const std::vector<Bytes>& records, const Also& also);
  void announce();

  contract::RefStore& refs_;
  Clock& clock_;
  std::mutex writing_;  // one appender; taken before mutex_
  mutable std::shared_mutex mutex_;
  std::unique_ptr<trust::OrgState> state_;
  std::vector<Bytes> records_;
  std::mutex listeners_mutex_;
  std::vector<std::weak_ptr<std::function<void()>>> listeners_;
};

}  // namespace dims::access
