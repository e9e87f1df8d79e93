// MuxStream: one long-lived bidirectional call that all callers share. Requests are numbered;
// replies come in any order and are handed to the caller's Mailbox.
//
//   send() -> waiting list -> Write ... Read -> Mailbox::take()
//
// A stream that breaks fails every request that waits on it and is opened anew by the next send().
//
// Threads: thread-safe. Completions run on the lane's thread and never block on a caller.
// Ownership: must outlive its lane's activities (destroy the lane first). A hold that comes with a
// request is dropped when the request has been answered, has failed or was forgotten. Errors:
// kUnavailable when the stream broke, kCancelled after shutdown(), else what the server said when
// it ended the stream.
//
// Traits: Request, Reply, kName, open(stub, context, queue, tag), ends(reply) = the last one of its
// request.
#pragma once

#include <spdlog/spdlog.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <set>
#include <unordered_map>

#include "common/client/grpc_status.h"
#include "common/client/lane.h"

namespace dims::client {

template <typename Traits>
class MuxStream {
 public:
  using Request = typename Traits::Request;
  using Reply = typename Traits::Reply;

  class Mailbox {
   public:
    // Waits for the next reply to any request of this mailbox.
    Result<Reply> take() {
      std::unique_lock lock(mutex_);
      arrived_.wait(lock, [&] { return !replies_.empty() || broken_; });
      if (replies_.empty()) return *broken_;
      Reply reply = std::move(replies_.front());
      replies_.pop_front();
      return reply;
    }

   private:
    friend class MuxStream;
    void push(Reply reply) {
      std::lock_guard lock(mutex_);
      replies_.push_back(std::move(reply));
      arrived_.notify_one();
    }
    void fail(const Error& error) {
      std::lock_guard lock(mutex_);
      if (!broken_) broken_ = error;
      arrived_.notify_one();
    }

    std::mutex mutex_;
    std::condition_variable arrived_;
    std::deque<Reply> replies_;
    std::optional<Error> broken_;
  };

  MuxStream(Lane& lane, std::string where) : lane_(lane), where_(std::move(where)) {}

  // How many requests the server wants in flight at most.
  void set_limit(std::size_t requests) {
    std::lock_guard lock(mutex_);
    limit_ = std::max<std::size_t>(requests, 1);
    room_.notify_all();
  }

  // Numbers and queues the request; waits only while the stream is full. Its replies go to the
  // mailbox.
  Result<std::uint64_t> send(Request request, const std::shared_ptr<Mailbox>& mailbox,
                             std::shared_ptr<void> hold = nullptr) {
    std::unique_lock lock(mutex_);
    room_.wait(lock, [&] { return down_ || !current_ || current_->waiting.size() < limit_; });
    if (down_) return cancelled();
    if (!current_) open_locked();
    const std::uint64_t number = next_number_++;
    request.set_request(number);
    current_->waiting.emplace(number, Waiting{mailbox, std::move(hold)});
    current_->to_write.push_back(std::move(request));
    write_locked(*current_);
    return number;
  }

  // The caller no longer wants these; tells the server where the protocol can.
  void forget(const std::vector<std::uint64_t>& numbers) {
    std::lock_guard lock(mutex_);
    if (!current_) return;
    std::vector<std::uint64_t> open;
    for (const std::uint64_t number : numbers) {
      if (current_->waiting.erase(number) != 0) open.push_back(number);
    }
    room_.notify_all();
    if constexpr (Traits::kCancels) {
      if (open.empty()) return;
      Request request;
      for (const std::uint64_t number : open) request.add_cancel(number);
      current_->to_write.push_back(std::move(request));
      write_locked(*current_);
    }
  }

  // Fails everything that waits now; the next send opens a stream on the lane's connection of then.
  void break_off(const Error& error) {
    std::shared_ptr<Wire> broken;  // dropped without the lock
    std::lock_guard lock(mutex_);
    if (!current_) return;
    broken = std::move(current_);
    fail_waiting(*broken, error);
    broken->context.TryCancel();
    room_.notify_all();
  }

  // Fails everything that waits, now and later.
  void shutdown() {
    std::lock_guard lock(mutex_);
    down_ = true;
    if (current_) {
      fail_waiting(*current_, cancelled());
      current_->context.TryCancel();
    }
    // After a reply that cannot be read the server need not know that the call is over.
    for (Wire* const wire : ending_) {
      fail_waiting(*wire, cancelled());
      wire->context.TryCancel();
    }
    room_.notify_all();
  }

 private:
  struct Waiting {
    std::shared_ptr<Mailbox> mailbox;
    std::shared_ptr<void> hold;
  };

  // One call of gRPC, from opening to its status.
  struct Wire {
    explicit Wire(Lane& lane) : activity(lane) {}

    Lane::Activity activity;  // first: gone last
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientAsyncReaderWriter<Request, Reply>> call;
    Lane::Completion on_start, on_read, on_write, on_finish;
    std::shared_ptr<Wire> self;  // until its last operation has completed
    std::deque<Request> to_write;
    std::unordered_map<std::uint64_t, Waiting> waiting;
    Reply incoming;
    grpc::Status status;
    bool started = false;
    bool reading = false;
    bool writing = false;
    bool ended = false;
    bool answered = false;
  };

  static Error cancelled() {
    return make_error(ErrorCode::kCancelled, "the connection was shut down");
  }

  void open_locked() {
    auto wire = std::make_shared<Wire>(lane_);
    Wire* const w = wire.get();
    wire->self = wire;
    wire->on_start = [this, w](bool ok) { return started(*w, ok); };
    wire->on_read = [this, w](bool ok) { return was_read(*w, ok); };
    wire->on_write = [this, w](bool ok) { return was_written(*w, ok); };
    wire->on_finish = [this, w](bool) { return finished(*w); };
    current_ = wire;
    wire->call = Traits::open(*lane_.stub(), &wire->context, lane_.queue(), &wire->on_start);
  }

  void write_locked(Wire& wire) {
    if (!wire.started || wire.ended || wire.writing || wire.to_write.empty()) return;
    wire.writing = true;
    wire.call->Write(wire.to_write.front(), &wire.on_write);  // serializes before it returns
    wire.to_write.pop_front();
  }

  // The call is over; ask for its status as soon as no operation is under way.
  void end_locked(Wire& wire) {
    wire.ended = true;
    ending_.insert(&wire);
    if (current_.get() == &wire) {
      current_ = nullptr;  // the next send opens another; this one lives by `self`
      room_.notify_all();
    }
    if (!wire.reading && !wire.writing) wire.call->Finish(&wire.status, &wire.on_finish);
  }

  std::shared_ptr<void> started(Wire& wire, bool ok) {
    std::lock_guard lock(mutex_);
    if (!ok) {
      end_locked(wire);
      return nullptr;
    }
    wire.started = true;
    wire.reading = true;
    wire.call->Read(&wire.incoming, &wire.on_read);
    write_locked(wire);
    return nullptr;
  }

  std::shared_ptr<void> was_read(Wire& wire, bool ok) {
    std::shared_ptr<void> hold;
    std::lock_guard lock(mutex_);
    if (!ok) {
      wire.reading = false;
      end_locked(wire);
      return nullptr;
    }
    wire.answered = true;
    const auto found = wire.waiting.find(wire.incoming.request());
    if (found != wire.waiting.end()) {
      const bool last = Traits::ends(wire.incoming);
      found->second.mailbox->push(std::move(wire.incoming));
      if (last) {
        hold = std::move(found->second.hold);
        wire.waiting.erase(found);
        room_.notify_one();
      }
    }
    wire.incoming = Reply();
    wire.call->Read(&wire.incoming, &wire.on_read);
    return hold;
  }

  std::shared_ptr<void> was_written(Wire& wire, bool /*ok*/) {
    std::lock_guard lock(mutex_);
    wire.writing = false;
    if (wire.ended) {
      end_locked(wire);
    } else {
      write_locked(wire);  // after a failed write the read fails too, and ends the call
    }
    return nullptr;
  }

  std::shared_ptr<void> finished(Wire& wire) {
    std::lock_guard lock(mutex_);
    ending_.erase(&wire);
    Error error = cancelled();
    if (!down_) {
      error = wire.status.ok()
                  ? make_error(ErrorCode::kUnavailable, "server " + where_ + " ended the stream")
                  : from_grpc(wire.status, where_);
      if (wire.answered && !wire.waiting.empty()) {
        spdlog::warn("the {} stream to {} broke with {} requests waiting: {}", Traits::kName,
                     where_, wire.waiting.size(), error.message);
      }
    }
    fail_waiting(wire, error);
    return std::move(wire.self);
  }

  static void fail_waiting(Wire& wire, const Error& error) {
    for (auto& [number, waiting] : wire.waiting) waiting.mailbox->fail(error);
    wire.waiting.clear();
    wire.to_write.clear();
  }

  Lane& lane_;
  const std::string where_;
  std::mutex mutex_;
  std::condition_variable room_;
  std::shared_ptr<Wire> current_;
  std::set<Wire*> ending_;  // waiting for their status
  std::uint64_t next_number_ = 1;
  std::size_t limit_ = 64;
  bool down_ = false;
};

}  // namespace dims::client
