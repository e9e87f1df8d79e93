#include "common/tree/uploader.h"

#include <algorithm>

namespace dims::tree {

using format::SealedObject;

Uploader::Uploader(contract::Remote& remote, const ImageId& image, const UploadOptions& options)
    : remote_(remote), image_(image), options_(options) {
  for (unsigned i = 0; i < options_.threads; ++i) threads_.emplace_back([this] { run(); });
}

Uploader::~Uploader() {
  {
    const MutexLock lock(mutex_);
    stop_ = true;
  }
  work_.notify_all();
  answered_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

Status Uploader::add(SealedObject object) {
  const auto head = format::parse_head(object.bytes);
  if (!head.ok()) return head.error();
  MutexLock lock(mutex_);
  if (!failure_.ok()) return failure_;
  ++counts_.objects;
  const bool chunk = head->kind == format::ObjectKind::kChunk;
  if (!chunk) ++counts_.nodes;
  if (seen_.size() >= options_.max_remembered_ids) seen_.clear();
  if (!seen_.insert(object.ref.id).second) {
    ++counts_.repeated;
    return ok_status();
  }
  const std::size_t bytes = object.bytes.size();
  // Numbered and queued before waiting: whoever gives the same object meanwhile, and then its
  // parent, must not see the parent overtake it.
  bytes_in_flight_ += bytes;
  if (chunk) chunk_bytes_ += bytes;
  (chunk ? chunks_ : nodes_).push_back({next_number_++, std::move(object)});
  const bool full = bytes_in_flight_ >= options_.max_bytes_in_flight;
  if (full || chunk_bytes_ >= options_.batch_bytes || chunks_.size() >= options_.batch_objects ||
      nodes_.size() >= options_.batch_objects) {
    work_.notify_one();
  }
  answered_.wait(lock, [&]() DIMS_REQUIRES(mutex_) {
    return bytes_in_flight_ < options_.max_bytes_in_flight || !failure_.ok() || stop_;
  });
  return failure_;
}

Status Uploader::finish() {
  MutexLock lock(mutex_);
  flushing_ = true;
  work_.notify_all();
  answered_.wait(lock, [&]() DIMS_REQUIRES(mutex_) {
    return (chunks_.empty() && nodes_.empty() && busy_ == 0) || !failure_.ok();
  });
  flushing_ = false;
  return failure_;
}

UploadCounts Uploader::counts() {
  const MutexLock lock(mutex_);
  return counts_;
}

void Uploader::take_from(Queue& queue, std::uint64_t below, const UploadOptions& options,
                         std::vector<SealedObject>& batch) {
  std::size_t bytes = 0;
  while (!queue.empty() && queue.front().number < below && batch.size() < options.batch_objects &&
         bytes < options.batch_bytes) {
    bytes += queue.front().object.bytes.size();
    batch.push_back(std::move(queue.front().object));
    queue.pop_front();
  }
}

std::vector<SealedObject> Uploader::take_locked(std::uint64_t* first_number, bool* nodes) {
  const bool push = flushing_ || bytes_in_flight_ >= options_.max_bytes_in_flight;
  std::vector<SealedObject> batch;
  if (!nodes_.empty() && !sending_nodes_ && (push || nodes_.size() >= options_.batch_objects)) {
    std::uint64_t answered = next_number_;  // every chunk below this number has been answered
    if (!chunks_.empty()) answered = std::min(answered, chunks_.front().number);
    if (!sending_.empty()) answered = std::min(answered, *sending_.begin());
    take_from(nodes_, answered, options_, batch);
    *nodes = true;
    if (!batch.empty()) return batch;
  }
  *nodes = false;
  if (!chunks_.empty() &&
      (push || chunk_bytes_ >= options_.batch_bytes || chunks_.size() >= options_.batch_objects)) {
    *first_number = chunks_.front().number;
    take_from(chunks_, next_number_, options_, batch);
  }
  return batch;
}

void Uploader::run() {
  MutexLock lock(mutex_);
  for (;;) {
    std::uint64_t first_number = 0;
    bool nodes = false;
    std::vector<SealedObject> batch;
    work_.wait(lock, [&]() DIMS_REQUIRES(mutex_) {
      if (stop_) return true;
      batch = take_locked(&first_number, &nodes);
      return !batch.empty();
    });
    if (stop_) return;
    std::size_t bytes = 0;
    for (const SealedObject& object : batch) bytes += object.bytes.size();
    ++busy_;
    if (nodes) {
      sending_nodes_ = true;
    } else {
      chunk_bytes_ -= bytes;
      sending_.insert(first_number);
    }
    const bool failed = !failure_.ok();
    lock.unlock();
    const Status status = failed ? ok_status() : send(batch, nodes);
    batch.clear();
    lock.lock();
    --busy_;
    bytes_in_flight_ -= bytes;
    if (nodes) {
      sending_nodes_ = false;
    } else {
      sending_.erase(sending_.find(first_number));
    }
    if (!status.ok() && failure_.ok()) failure_ = status;
    answered_.notify_all();
    work_.notify_one();  // there may be nodes now that waited for these chunks, and chunks beside
  }
}

Status Uploader::send(const std::vector<SealedObject>& batch, bool nodes) {
  if (options_.cancel != nullptr && *options_.cancel)
    return make_error(ErrorCode::kCancelled, "the upload was given up");
  std::vector<format::ObjectKey> keys;
  keys.reserve(batch.size());
  for (const SealedObject& object : batch) keys.push_back(object.ref.object_key());
  DIMS_ASSIGN(const std::vector<bool> present, remote_.has(image_, keys));
  std::vector<contract::Remote::PutItem> items;
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < batch.size(); ++i) {
    if (present[i]) continue;
    items.push_back({keys[i], batch[i].bytes});
    bytes += batch[i].bytes.size();
  }
  if (!items.empty()) {
    const auto stored = remote_.put(image_, items, options_.priority);
    if (!stored.ok()) return stored.error();
  }
  if (options_.arrived != nullptr) {
    for (const SealedObject& object : batch) *options_.arrived += object.bytes.size();
  }
  const MutexLock lock(mutex_);
  counts_.present += batch.size() - items.size();
  counts_.sent += items.size();
  counts_.sent_bytes += bytes;
  if (nodes) {
    counts_.sent_nodes += items.size();
    counts_.sent_node_bytes += bytes;
  }
  return ok_status();
}

}  // namespace dims::tree
