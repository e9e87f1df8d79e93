#include "common/tree/uploader.h"

namespace dims::tree {

using format::SealedObject;

Uploader::Uploader(contract::Remote& remote, const ImageId& image, const UploadOptions& options)
    : remote_(remote), image_(image), options_(options) {
  for (unsigned i = 0; i < options_.threads; ++i) threads_.emplace_back([this] { run(); });
}

Uploader::~Uploader() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

Status Uploader::add(SealedObject object) {
  std::unique_lock lock(mutex_);
  if (!failure_.ok()) return failure_;
  ++counts_.objects;
  if (seen_.contains(object.ref.id)) {
    ++counts_.repeated;
    return ok_status();
  }
  if (seen_.size() >= options_.max_remembered_ids) seen_.clear();
  seen_.insert(object.ref.id);
  changed_.wait(lock, [&] { return bytes_in_flight_ < options_.max_bytes_in_flight || !failure_.ok() || stop_; });
  if (!failure_.ok()) return failure_;
  bytes_in_flight_ += object.bytes.size();
  queued_bytes_ += object.bytes.size();
  queue_.push_back(std::move(object));
  const bool wake = queued_bytes_ >= options_.batch_bytes || queue_.size() >= options_.batch_objects;
  lock.unlock();
  if (wake) changed_.notify_all();
  return ok_status();
}

Status Uploader::finish() {
  std::unique_lock lock(mutex_);
  flushing_ = true;
  changed_.notify_all();
  changed_.wait(lock, [&] { return (queue_.empty() && busy_ == 0) || !failure_.ok(); });
  flushing_ = false;
  return failure_;
}

UploadCounts Uploader::counts() {
  const std::lock_guard lock(mutex_);
  return counts_;
}

void Uploader::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    const auto ready = [&] {
      return queued_bytes_ >= options_.batch_bytes || queue_.size() >= options_.batch_objects ||
             ((flushing_ || bytes_in_flight_ >= options_.max_bytes_in_flight) && !queue_.empty());
    };
    changed_.wait(lock, [&] { return stop_ || ready(); });
    if (stop_) return;
    std::vector<SealedObject> batch;
    std::size_t bytes = 0;
    while (!queue_.empty() && batch.size() < options_.batch_objects && bytes < options_.batch_bytes) {
      bytes += queue_.front().bytes.size();
      batch.push_back(std::move(queue_.front()));
      queue_.pop_front();
    }
    queued_bytes_ -= bytes;
    ++busy_;
    const bool failed = !failure_.ok();
    lock.unlock();
    const Status status = failed ? ok_status() : send(batch);
    lock.lock();
    --busy_;
    bytes_in_flight_ -= bytes;
    if (!status.ok() && failure_.ok()) failure_ = status;
    changed_.notify_all();
  }
}

Status Uploader::send(std::vector<SealedObject>& batch) {
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
  const std::lock_guard lock(mutex_);
  counts_.present += batch.size() - items.size();
  counts_.sent += items.size();
  counts_.sent_bytes += bytes;
  return ok_status();
}

}  // namespace dims::tree
