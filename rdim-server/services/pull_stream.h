// PullStream: a call that streams replies from a source: the next one is made when the last one is
// on its way, so a slow client costs one reply of memory. Serves Diff and ListVersions.
//
// Threads: gRPC's and the executor's. Ownership: owns itself from begin() to OnDone. Errors: the
// source's error is the status of the call.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "rdim-server/services/context.h"
#include "rdim-server/services/status.h"

namespace dims::services {

template <typename Reply>
class PullStream : public grpc::ServerWriteReactor<Reply>,
                   public OpenStream,
                   public std::enable_shared_from_this<PullStream<Reply>> {
 public:
  // Called on the executor, one call at a time; nullopt ends the stream.
  using Source = std::function<Result<std::optional<Reply>>()>;

  PullStream(ServiceContext& context, Source source)
      : context_(context), source_(std::move(source)) {}

  static grpc::ServerWriteReactor<Reply>* begin(std::shared_ptr<PullStream> stream) {
    PullStream* const raw = stream.get();
    raw->self_ = stream;
    raw->context_.streams.add(stream);
    raw->pull();
    return raw;
  }

  void OnWriteDone(bool ok) override {
    {
      std::lock_guard lock(mutex_);
      busy_ = false;
      if (!ok) over_ = true;
    }
    pull();
  }
  void OnCancel() override { stop(grpc::Status::CANCELLED); }
  void OnDone() override { auto last = std::move(self_); }
  void end() override {
    stop(to_grpc(make_error(ErrorCode::kUnavailable, "the server is shutting down",
                            "try again when it is back")));
  }

 private:
  void stop(const grpc::Status& status) {
    {
      std::lock_guard lock(mutex_);
      if (!over_) status_ = status;
      over_ = true;
    }
    pull();
  }

  void pull() {
    const auto keep = this->weak_from_this().lock();
    bool finish = false;
    grpc::Status status;
    {
      std::lock_guard lock(mutex_);
      if (busy_ || finished_) return;
      finish = finished_ = over_;
      busy_ = !finish;
      status = status_;
    }
    if (finish) {
      this->Finish(status);
      return;
    }
    context_.transfers.run(contract::Priority::kBoot,
                           [self = this->shared_from_this()] { self->make(); });
  }

  void make() {
    Result<std::optional<Reply>> next = source_();
    bool write = false;
    {
      std::lock_guard lock(mutex_);
      if (!over_ && next.ok() && next->has_value()) {
        reply_ = std::move(**next);
        write = true;
      } else {
        if (!over_ && !next.ok()) status_ = to_grpc(next.error());
        over_ = true;
        busy_ = false;
      }
    }
    if (write) {
      this->StartWrite(&reply_);
    } else {
      pull();
    }
  }

  ServiceContext& context_;
  Source source_;
  std::mutex mutex_;
  std::shared_ptr<PullStream> self_;
  Reply reply_;
  grpc::Status status_;
  bool busy_ = false;  // a task or a write is under way
  bool over_ = false;
  bool finished_ = false;
};

}  // namespace dims::services
