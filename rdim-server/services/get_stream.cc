#include "rdim-server/services/get_stream.h"

#include "rdim-server/services/convert.h"
#include "rdim-server/services/object_streams.h"

namespace dims::services {

void GetStream::accept(v1::GetRequest request, std::uint64_t bytes) {
  for (const std::uint64_t number : request.cancel()) {
    const auto found = jobs_.find(number);
    if (found != jobs_.end()) found->second->cancelled = true;
  }
  begin_request(bytes);
  auto job = std::make_shared<Job>();
  job->request = request.request();
  job->bytes = bytes;
  job->priority = priority_of(request.priority());
  if (request.keys_size() == 0 && request.cancel_size() != 0) {
    job->cancelled = true;  // nothing but cancels: passes through to be counted off
  } else {
    Status status = take_id(request.image(), "image id", job->image);
    auto keys = keys_of(request.keys(), context_.limits.objects_per_request_max);
    if (status.ok() && !keys.ok()) status = keys.error();
    if (!status.ok()) job->error = status.error();
    if (keys.ok()) job->keys = std::move(*keys);
    for (std::uint32_t i = 0; i < job->keys.size(); ++i) job->indexes.push_back(i);
    jobs_[job->request] = job;
  }
  // What is left of the message counts for this stream alone: a client that does not read its
  // replies must not keep all others waiting.
  release(bytes);
  waiting_.at(static_cast<std::size_t>(job->priority)).push_back(std::move(job));
  progress();
}

void GetStream::progress() {
  while (tasks_ < kTasksMax && !over() && reply_bytes_ < context_.limits.stream_reply_bytes_max) {
    JobPtr job;
    for (auto& queue : waiting_) {
      if (queue.empty()) continue;
      job = std::move(queue.front());
      queue.pop_front();
      break;
    }
    if (!job) return;
    const auto priority = job->priority;
    run_task(priority, [this, job = std::move(job)] { work_on(job); });
  }
}

void GetStream::work_on(const JobPtr& job) {
  v1::GetReply reply;
  reply.set_request(job->request);
  bool wanted = false;
  {
    std::lock_guard lock(mutex_);
    wanted = !job->cancelled && !over();
  }
  bool done = true;
  if (wanted) done = fill(*job, reply);
  {
    std::lock_guard lock(mutex_);
    if (wanted && !job->cancelled) push_reply(std::move(reply), job->priority);
    if (!done) {
      waiting_.at(static_cast<std::size_t>(job->priority)).push_front(job);
      return;
    }
    const auto found = jobs_.find(job->request);
    if (found != jobs_.end() && found->second == job) jobs_.erase(found);
    end_request(job->bytes);
  }
}

bool GetStream::fill(Job& job, v1::GetReply& reply) {
  if (!job.error) {
    const auto caller = job.started ? context_.gate.admit_again(Rpc::kGet, ticket_, job.image)
                                    : context_.gate.admit(Rpc::kGet, ticket_, job.image);
    job.started = true;
    if (!caller.ok()) job.error = caller.error();
  }
  if (!job.error) {
    const Status access =
        context_.catalog.check_access(job.image, job.keys, catalog::Access::kRead);
    if (!access.ok()) job.error = access.error();
  }
  if (job.error) {
    *reply.mutable_error() = to_detail(*job.error);
    reply.set_done(true);
    return true;
  }
  const bool urgent = job.priority <= contract::Priority::kBoot;
  const std::uint64_t limit =
      urgent ? context_.limits.demand_reply_bytes : context_.limits.bulk_reply_bytes;
  std::uint64_t bytes = 0;
  std::vector<bool> answered(job.keys.size());
  context_.objects.get(job.keys, [&](std::size_t index, Result<Bytes> object) {
    v1::GetReply::Item* item = reply.add_items();
    item->set_index(job.indexes[index]);
    answered[index] = true;
    if (object.ok()) {
      bytes += object->size();
      item->set_object(object->data(), object->size());
    } else {
      *item->mutable_error() = to_detail(object.error());
    }
    return bytes < limit;
  });
  context_.counters.gets += static_cast<std::uint64_t>(reply.items_size());
  context_.counters.bytes_sent += bytes;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < answered.size(); ++i) {
    if (answered[i]) continue;
    job.keys[kept] = job.keys[i];
    job.indexes[kept++] = job.indexes[i];
  }
  job.keys.resize(kept);
  job.indexes.resize(kept);
  reply.set_done(kept == 0);
  return kept == 0;
}

}  // namespace dims::services
