// The stream GetLog: the records from a number on, then, if asked, what comes.
//
// Threads: gRPC's, the executor's, and the appender's for a wake-up. Ownership: owns itself from
// begin() to OnDone. Memory: one reply. Errors: the status of the call; a caller that may no longer
// read ends it.
#pragma once

#include "rdim-server/services/context.h"
#include "rdim-server/services/status.h"

#include "dims/v1/access.pb.h"

namespace dims::services {

class LogStream : public grpc::ServerWriteReactor<v1::GetLogReply>,
                  public OpenStream,
                  public std::enable_shared_from_this<LogStream> {
 public:
  LogStream(ServiceContext& context, Ticket ticket, const v1::GetLogRequest& request)
      : context_(context),
        ticket_(std::move(ticket)),
        next_(request.from_seq()),
        follow_(request.follow()) {}
  static grpc::ServerWriteReactor<v1::GetLogReply>* begin(std::shared_ptr<LogStream> stream);

  void OnWriteDone(bool ok) override;
  void OnCancel() override { stop(grpc::Status::CANCELLED); }
  void OnDone() override;
  void end() override;

 private:
  void stop(const grpc::Status& status);
  void advance();

  ServiceContext& context_;
  const Ticket ticket_;
  std::shared_ptr<LogStream> self_;
  std::shared_ptr<void> listening_;
  std::mutex mutex_;
  v1::GetLogReply reply_;
  grpc::Status status_;
  std::uint64_t next_;
  const bool follow_;
  bool sent_any_ = false;
  bool writing_ = false;
  bool over_ = false;
  bool finished_ = false;
};

}  // namespace dims::services
