// The stream Get: many requests in flight; what a guest waits for goes before what is fetched
// ahead. A request is answered in replies of bounded size, as the network takes them: no thread
// waits for a slow client.
//
// Threads, ownership, memory: as BidiStream. Errors: an object's in its item, a request's in its
// reply.
#pragma once

#include <array>
#include <deque>
#include <unordered_map>

#include "rdim-server/services/bidi_stream.h"

#include "dims/v1/dims.pb.h"

namespace dims::services {

class GetStream : public BidiStream<v1::GetRequest, v1::GetReply> {
 public:
  using BidiStream::BidiStream;

 private:
  static constexpr std::size_t kTasksMax = 2;

  struct Job {
    std::uint64_t request = 0;
    std::uint64_t bytes = 0;  // of the request
    ImageId image;
    contract::Priority priority = contract::Priority::kDemand;
    std::vector<format::ObjectKey> keys;  // not yet answered
    std::vector<std::uint32_t> indexes;   // their places in the request
    std::optional<Error> error;
    bool started = false;
    bool cancelled = false;
  };
  using JobPtr = std::shared_ptr<Job>;

  void accept(v1::GetRequest request, std::uint64_t bytes) override;
  void progress() override;
  void work_on(const JobPtr& job);
  // Reads the next objects of the job into the reply; true when the job is done.
  bool fill(Job& job, v1::GetReply& reply);

  std::array<std::deque<JobPtr>, 4> waiting_;
  std::unordered_map<std::uint64_t, JobPtr> jobs_;
};

}  // namespace dims::services
