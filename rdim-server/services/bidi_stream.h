// BidiStream: the life of one bidirectional call: reading ahead within limits, tasks on the
// executor, a queue of replies, the end. Get, Has and Put say what a request means.
//
//   read -> accept() -> tasks -> reply() -> write       reads pause at the limits; replies keep
//   their order Finish only when no task runs and no write is under way; OnDone lets go of the last
//   owner
//
// Threads: gRPC's threads and the executor's; the state is under mutex_, and gRPC is called without
// it. Ownership: owns itself from begin() to OnDone; tasks share it. Memory: bounded by
// ServiceLimits.
#pragma once

#include <grpcpp/grpcpp.h>

#include <iterator>
#include <list>
#include <memory>
#include <mutex>
#include <utility>

#include "rdim-server/services/context.h"
#include "rdim-server/services/status.h"

namespace dims::services {

template <typename Request, typename Reply>
class BidiStream : public grpc::ServerBidiReactor<Request, Reply>,
                   public OpenStream,
                   public std::enable_shared_from_this<BidiStream<Request, Reply>> {
 public:
  BidiStream(ServiceContext& context, Ticket ticket)
      : context_(context), ticket_(std::move(ticket)) {}
  // What was read and never answered, because the call ended.
  ~BidiStream() override { context_.budget.give_back(charged_); }

  // Starts the call; the reactor is what the service returns to gRPC.
  static grpc::ServerBidiReactor<Request, Reply>* begin(std::shared_ptr<BidiStream> stream) {
    BidiStream* const raw = stream.get();
    raw->self_ = stream;
    raw->context_.streams.add(stream);
    raw->advance();
    return raw;
  }

  void OnReadDone(bool ok) override {
    const std::uint64_t bytes = ok ? incoming_.ByteSizeLong() : 0;
    context_.budget.take(bytes);
    // A stream keeps the token that it began with: only a new one can carry another.
    const bool login_ended = ok && context_.gate.needs_login(ticket_);
    std::uint64_t released = 0;
    {
      std::lock_guard lock(mutex_);
      charged_ += bytes;
      reading_ = false;
      login_ended_ = login_ended_ || login_ended;
      if (!ok) {
        no_more_reads_ = true;
      } else if (!over()) {
        accept(std::exchange(incoming_, Request()), bytes);
      } else {  // nobody will look at it: everybody's budget must not wait for this stream's end
        incoming_ = Request();
        release(bytes);
      }
      released = std::exchange(released_, 0);
    }
    context_.budget.give_back(released);  // it wakes other streams: without the lock
    advance();
  }
  void OnWriteDone(bool ok) override {
    {
      std::lock_guard lock(mutex_);
      writing_ = false;
      reply_bytes_ -= replies_.front().bytes;
      replies_.pop_front();
      if (!ok) cancelled_ = true;
      progress();
    }
    advance();
  }
  void OnCancel() override {
    {
      std::lock_guard lock(mutex_);
      cancelled_ = true;
    }
    advance();
  }
  void OnDone() override { auto last = std::move(self_); }
  void end() override {
    {
      std::lock_guard lock(mutex_);
      ending_ = true;
    }
    advance();
  }

 protected:
  // All below: with mutex_ held.
  // A request came: begin_request(), and end_request() when it is answered.
  virtual void accept(Request request, std::uint64_t bytes) = 0;
  // Room for replies may have come.
  virtual void progress() {}

  void begin_request(std::uint64_t bytes) {
    ++in_flight_;
    request_bytes_ += bytes;
  }
  void end_request(std::uint64_t bytes) {
    --in_flight_;
    request_bytes_ -= bytes;
  }
  // The caller gives the bytes back to the budget when he has left the lock.
  void uncharge(std::uint64_t bytes) { charged_ -= bytes; }
  // Of accept(): the request's bytes are kept no longer.
  void release(std::uint64_t bytes) {
    uncharge(bytes);
    released_ += bytes;
  }
  void push_reply(Reply reply, contract::Priority priority) {
    if (over()) return;
    const std::uint64_t bytes = reply.ByteSizeLong() + kReplyCosts;
    reply_bytes_ += bytes;
    auto at = replies_.end();
    // Before those that may wait longer, never before the one that is being written.
    while (at != replies_.begin() && std::prev(at) != replies_.begin() &&
           std::prev(at)->priority > priority) {
      --at;
    }
    replies_.insert(at, Queued{std::move(reply), bytes, priority});
  }
  bool over() const { return cancelled_ || ending_ || login_ended_; }

  template <typename Body>
  void run_task(contract::Priority priority, Body body) {
    ++tasks_;
    context_.transfers.run(priority, [self = this->shared_from_this(), body = std::move(body)] {
      body();
      {
        std::lock_guard lock(self->mutex_);
        --self->tasks_;
        self->progress();
      }
      self->advance();
    });
  }

  // Without mutex_: starts whatever can be started now.
  void advance() {
    const auto keep = this->weak_from_this().lock();
    bool read = false, finish = false;
    const Reply* write = nullptr;
    {
      std::lock_guard lock(mutex_);
      if (finished_) return;
      if (may_read()) {
        waiting_for_room_ = !context_.budget.room_or_wake([weak = this->weak_from_this()] {
          if (const auto stream = weak.lock()) stream->woken();
        });
        read = reading_ = !waiting_for_room_;
        if (read) ++starting_;
      }
      if (!writing_ && !replies_.empty() && !over()) {
        writing_ = true;
        write = &replies_.front().reply;
      }
      const bool answered = no_more_reads_ && in_flight_ == 0 && replies_.empty();
      // gRPC knows of a read only once it is started: its call must not end before.
      finish = finished_ = tasks_ == 0 && !writing_ && starting_ == 0 && (over() || answered);
    }
    if (read) this->StartRead(&incoming_);
    if (write != nullptr) this->StartWrite(write);
    if (finish) this->Finish(end_status());
    if (read) started();
  }

  ServiceContext& context_;
  const Ticket ticket_;  // asked for every request
  std::mutex mutex_;
  std::uint64_t reply_bytes_ = 0;
  std::size_t tasks_ = 0;

 private:
  static constexpr std::uint64_t kReplyCosts = 512;  // beside its bytes: small ones count, too

  struct Queued {
    Reply reply;
    std::uint64_t bytes = 0;
    contract::Priority priority = contract::Priority::kDemand;
  };

  bool may_read() const {
    return !reading_ && !no_more_reads_ && !waiting_for_room_ && !over() &&
           in_flight_ < 2 * std::size_t{context_.limits.requests_in_flight_max} &&
           request_bytes_ < context_.limits.stream_request_bytes_max &&
           // Who reads no replies is asked for no more. Twice what stops the work, so that a cancel
           // still comes through.
           reply_bytes_ < 2 * context_.limits.stream_reply_bytes_max;
  }
  void started() {
    {
      std::lock_guard lock(mutex_);
      --starting_;
    }
    advance();
  }
  void woken() {
    {
      std::lock_guard lock(mutex_);
      waiting_for_room_ = false;
    }
    advance();
  }
  grpc::Status end_status() {
    std::lock_guard lock(mutex_);
    if (login_ended_) return to_grpc(access::login_needed());
    if (!ending_) return grpc::Status::OK;
    return to_grpc(make_error(ErrorCode::kUnavailable, "the server is shutting down",
                              "try again when it is back"));
  }

  std::shared_ptr<BidiStream> self_;
  Request incoming_;
  std::list<Queued> replies_;  // the first may be under way
  std::size_t in_flight_ = 0;
  std::uint64_t request_bytes_ = 0;
  std::uint64_t charged_ = 0;   // to the budget of all streams
  std::uint64_t released_ = 0;  // to be given back to it
  std::size_t starting_ = 0;    // reads that were decided on and are not gRPC's yet
  bool reading_ = false;
  bool writing_ = false;
  bool waiting_for_room_ = false;
  bool no_more_reads_ = false;
  bool cancelled_ = false;
  bool login_ended_ = false;
  bool ending_ = false;
  bool finished_ = false;
};

}  // namespace dims::services
