#include "common/client/transfer.h"

#include "common/client/convert.h"

namespace dims::client {

using contract::Priority;
using format::ObjectKey;

namespace {

Error misbehaved(const std::string& what) {
  return make_error(ErrorCode::kInternal, "the server does not keep to the protocol: " + what,
                    "update the older of client and server");
}

// The requests of one call that are in flight: number -> the slice of keys that it asks for. What
// is still open when the call ends is forgotten.
template <typename Traits>
class OpenRequests {
 public:
  struct Slice {
    std::size_t first = 0;
    std::size_t count = 0;
    std::vector<bool> answered;
  };
  using Stream = MuxStream<Traits>;

  explicit OpenRequests(Stream& stream) : stream_(stream) {}
  ~OpenRequests() {
    if (slices_.empty()) return;
    std::vector<std::uint64_t> numbers;
    for (const auto& [number, slice] : slices_) numbers.push_back(number);
    stream_.forget(numbers);
  }
  OpenRequests(const OpenRequests&) = delete;
  OpenRequests& operator=(const OpenRequests&) = delete;

  Status send(typename Traits::Request request, std::size_t first, std::size_t count,
              std::shared_ptr<void> hold = nullptr) {
    DIMS_ASSIGN(const std::uint64_t number,
                stream_.send(std::move(request), mailbox_, std::move(hold)));
    slices_.emplace(number, Slice{first, count, std::vector<bool>(count)});
    return ok_status();
  }
  Result<typename Traits::Reply> take() { return mailbox_->take(); }
  Slice* find(std::uint64_t number) {
    const auto found = slices_.find(number);
    return found == slices_.end() ? nullptr : &found->second;
  }
  void close(std::uint64_t number) { slices_.erase(number); }
  std::size_t size() const { return slices_.size(); }

 private:
  Stream& stream_;
  std::shared_ptr<typename Stream::Mailbox> mailbox_ = std::make_shared<typename Stream::Mailbox>();
  std::unordered_map<std::uint64_t, Slice> slices_;
};

template <typename Request>
Request request_for(const ImageId& image, std::span<const ObjectKey> keys) {
  Request request;
  put_id(image, request.mutable_image());
  request.mutable_keys()->Reserve(static_cast<int>(keys.size()));
  for (const ObjectKey& key : keys) *request.add_keys() = to_proto(key);
  return request;
}

}  // namespace

std::shared_ptr<void> ByteBudget::take(std::uint64_t bytes) {
  std::unique_lock lock(mutex_);
  room_.wait(lock, [&] { return down_ || used_ == 0 || used_ + bytes <= max_; });
  if (down_) return nullptr;
  used_ += bytes;
  return {this, [self = shared_from_this(), bytes](void*) {
            std::lock_guard give_back(self->mutex_);
            self->used_ -= bytes;
            self->room_.notify_all();
          }};
}

void ByteBudget::shutdown() {
  std::lock_guard lock(mutex_);
  down_ = true;
  room_.notify_all();
}

Transfer::Transfer(Lane& lane, const std::string& where, std::shared_ptr<ByteBudget> budget,
                   TransferCounters& counters)
    : get_(lane, where),
      has_(lane, where),
      put_(lane, where),
      budget_(std::move(budget)),
      counters_(counters) {}

void Transfer::set_requests_in_flight(std::size_t requests) {
  get_.set_limit(requests);
  has_.set_limit(requests);
  put_.set_limit(requests);
}

void Transfer::break_off(const Error& error) {
  get_.break_off(error);
  has_.break_off(error);
  put_.break_off(error);
}

void Transfer::shutdown() {
  get_.shutdown();
  has_.shutdown();
  put_.shutdown();
}

Status Transfer::get(const RequestLimits& limits, const ImageId& image,
                     std::span<const ObjectKey> keys, Priority priority,
                     const contract::Remote::GetSink& sink) {
  OpenRequests<GetTraits> open(get_);
  std::size_t sent = 0;
  while (sent < keys.size() || open.size() != 0) {
    while (sent < keys.size() && open.size() < limits.in_flight_per_call) {
      const std::size_t count = std::min(limits.keys, keys.size() - sent);
      auto request = request_for<v1::GetRequest>(image, keys.subspan(sent, count));
      request.set_priority(to_proto(priority));
      DIMS_TRY(open.send(std::move(request), sent, count));
      sent += count;
    }
    DIMS_ASSIGN(v1::GetReply reply, open.take());
    auto* const slice = open.find(reply.request());
    if (slice == nullptr) return misbehaved("a reply to no request");
    for (v1::GetReply::Item& item : *reply.mutable_items()) {
      if (item.index() >= slice->count || slice->answered[item.index()])
        return misbehaved("an item that was not asked");
      slice->answered[item.index()] = true;
      const std::size_t index = slice->first + item.index();
      if (item.has_error()) {
        sink(index, from_detail(item.error()));
        continue;
      }
      const ByteView bytes = as_bytes(item.object());
      counters_.bytes_received += bytes.size();
      ++counters_.objects_received;
      if (format::object_id(bytes) == keys[index].id) {
        sink(index, Bytes(bytes.begin(), bytes.end()));
      } else {
        sink(index, make_error(ErrorCode::kCorrupt,
                               "object " + keys[index].id.short_hex() + " arrived damaged",
                               "it is fetched again; if it stays so, check the server's store"));
      }
    }
    if (reply.has_error()) return from_detail(reply.error());
    if (reply.done()) {
      if (std::find(slice->answered.begin(), slice->answered.end(), false) !=
          slice->answered.end()) {
        return misbehaved("an object was left unanswered");
      }
      open.close(reply.request());
    }
  }
  return ok_status();
}

Result<std::vector<bool>> Transfer::has(const RequestLimits& limits, const ImageId& image,
                                        std::span<const ObjectKey> keys) {
  OpenRequests<HasTraits> open(has_);
  std::vector<bool> present(keys.size());
  std::size_t sent = 0;
  while (sent < keys.size() || open.size() != 0) {
    while (sent < keys.size() && open.size() < limits.in_flight_per_call) {
      const std::size_t count = std::min(limits.keys, keys.size() - sent);
      DIMS_TRY(
          open.send(request_for<v1::HasRequest>(image, keys.subspan(sent, count)), sent, count));
      sent += count;
    }
    DIMS_ASSIGN(const v1::HasReply reply, open.take());
    auto* const slice = open.find(reply.request());
    if (slice == nullptr) return misbehaved("a reply to no request");
    if (reply.has_error()) {
      open.close(reply.request());
      return from_detail(reply.error());
    }
    if (reply.present().size() != slice->count) return misbehaved("a has-reply of another length");
    for (std::size_t i = 0; i < slice->count; ++i)
      present[slice->first + i] = reply.present()[i] != 0;
    open.close(reply.request());
  }
  return present;
}

Result<std::uint64_t> Transfer::put(const RequestLimits& limits, const ImageId& image,
                                    std::span<const contract::Remote::PutItem> items,
                                    Priority priority) {
  OpenRequests<PutTraits> open(put_);
  std::uint64_t stored = 0;
  std::size_t sent = 0;
  while (sent < items.size() || open.size() != 0) {
    while (sent < items.size() && open.size() < limits.in_flight_per_call) {
      std::size_t count = 0, bytes = 0;
      while (sent + count < items.size() && count < limits.keys &&
             (count == 0 || bytes + items[sent + count].object.size() <= limits.put_bytes)) {
        bytes += items[sent + count++].object.size();
      }
      std::shared_ptr<void> hold = budget_->take(bytes);
      if (hold == nullptr) return make_error(ErrorCode::kCancelled, "the connection was shut down");
      v1::PutRequest request;
      put_id(image, request.mutable_image());
      request.set_priority(to_proto(priority));
      for (const auto& item : items.subspan(sent, count)) {
        *request.add_keys() = to_proto(item.key);
        request.add_objects(item.object.data(), item.object.size());
      }
      DIMS_TRY(open.send(std::move(request), sent, count, std::move(hold)));
      sent += count;
    }
    DIMS_ASSIGN(const v1::PutReply reply, open.take());
    const auto* const slice = open.find(reply.request());
    if (slice == nullptr) return misbehaved("a reply to no request");
    const auto answered = items.subspan(slice->first, slice->count);
    open.close(reply.request());
    if (reply.has_error()) return from_detail(reply.error());
    // Counted when it has arrived: what a server refuses again and again is no progress.
    for (const auto& item : answered) counters_.bytes_sent += item.object.size();
    counters_.objects_sent += answered.size();
    stored += reply.stored();
  }
  return stored;
}

}  // namespace dims::client
