// The stream Watch: READY first, then the newest version of each image that it names and its
// conflict branches, then what the catalog announces. Costs no thread while nothing happens. Ends
// when its token does.
//
// Threads: gRPC's, the executor's, and the announcer's for a wake-up. Ownership: owns itself from
// begin() to OnDone. Memory: bounded by the subscription.
#pragma once

#include <deque>

#include "rdim-server/services/context.h"
#include "rdim-server/services/status.h"

#include "dims/v1/dims.pb.h"

namespace dims::services {

class WatchStream : public grpc::ServerWriteReactor<v1::Event>,
                    public OpenStream,
                    public std::enable_shared_from_this<WatchStream> {
 public:
  WatchStream(ServiceContext& context, Ticket ticket)
      : context_(context), ticket_(std::move(ticket)) {}
  static grpc::ServerWriteReactor<v1::Event>* begin(std::shared_ptr<WatchStream> stream,
                                                    const v1::WatchRequest& request);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;
  void end() override;

 private:
  Status subscribe(const v1::WatchRequest& request);
  void stop(const grpc::Status& status);
  void advance();
  // The next event that the caller may still see.
  std::optional<contract::ServerEvent> next_event();
  // Names what the caller may know now; false: the image is gone.
  bool name_branches(const access::Caller& caller, contract::ServerEvent& event);

  ServiceContext& context_;
  const Ticket ticket_;
  std::shared_ptr<WatchStream> self_;
  std::shared_ptr<catalog::Subscription> subscription_;
  std::mutex mutex_;
  std::deque<contract::ServerEvent> first_;  // to be told behind READY
  v1::Event event_;
  grpc::Status status_;
  bool ready_sent_ = false;
  bool writing_ = false;
  bool over_ = false;
  bool finished_ = false;
};

}  // namespace dims::services
