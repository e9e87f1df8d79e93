#include "tests/support/fake_remote.h"

namespace dims::test {

using namespace contract;  // NOLINT: this file is about nothing else

namespace {

Error away() {
  return make_error(ErrorCode::kUnavailable, "the server cannot be reached",
                    "the test took it away");
}
Error ended() { return make_error(ErrorCode::kCancelled, "the connection was shut down"); }

}  // namespace

class FakeRemote::Stream : public EventStream {
 public:
  Stream(std::shared_ptr<FakeServer> server, std::shared_ptr<Network> network,
         std::vector<ImageId> images, const SessionId& session)
      : server_(std::move(server)),
        network_(std::move(network)),
        images_(std::move(images)),
        session_(session),
        next_(server_->event_count()),
        first_(server_->first_events(images_)) {
    std::lock_guard lock(network_->mutex);
    outage_ = network_->outage;
    // The listener may run while this stream dies: it holds only the network.
    listener_ = server_->add_listener([network = network_] {
      std::lock_guard wake(network->mutex);
      network->changed.notify_all();
    });
  }
  ~Stream() override { server_->remove_listener(listener_); }

  Result<ServerEvent> next(std::chrono::milliseconds timeout) override {
    std::unique_lock lock(network_->mutex);
    if (!ready_) {
      ready_ = true;
      return ServerEvent{};
    }
    const auto until = std::chrono::steady_clock::now() + timeout;
    for (;;) {
      if (network_->down || cancelled_) return ended();
      if (network_->outage != outage_) return away();
      if (first_told_ < first_.size()) return first_[first_told_++];
      if (auto event = server_->event_after(next_, images_, session_)) {
        next_ = event->second;
        return event->first;
      }
      if (network_->changed.wait_until(lock, until) == std::cv_status::timeout) {
        return make_error(ErrorCode::kDeadlineExceeded, "no event in time");
      }
    }
  }

  void cancel() override {
    std::lock_guard lock(network_->mutex);
    cancelled_ = true;
    network_->changed.notify_all();
  }

 private:
  bool cancelled_ = false;  // under the network's mutex
  std::shared_ptr<FakeServer> server_;
  std::shared_ptr<Network> network_;
  std::vector<ImageId> images_;
  SessionId session_;
  std::size_t next_;
  std::vector<ServerEvent> first_;
  std::size_t first_told_ = 0;
  std::uint64_t outage_ = 0;
  std::uint64_t listener_ = 0;
  bool ready_ = false;
};

FakeRemote::FakeRemote(std::shared_ptr<FakeServer> server) : server_(std::move(server)) {}
FakeRemote::~FakeRemote() { shutdown(); }

Status FakeRemote::enter(RemoteCall call) {
  std::unique_lock lock(network_->mutex);
  Knobs& knobs = knobs_of(*network_, call);
  ++knobs.calls;
  const std::uint64_t outage = network_->outage;
  const auto over = [&] {
    return network_->down || network_->outage != outage || !network_->available;
  };
  ++knobs.waiting;
  network_->changed.wait(lock, [&] { return !knobs.held || over(); });
  --knobs.waiting;
  if (network_->delay.count() > 0) network_->changed.wait_for(lock, network_->delay, over);
  if (network_->down) return ended();
  if (over()) return away();
  if (knobs.failures > 0) {
    --knobs.failures;
    return knobs.failure;
  }
  return ok_status();
}

Status FakeRemote::leave(RemoteCall call) {
  std::lock_guard lock(network_->mutex);
  Knobs& knobs = knobs_of(*network_, call);
  if (knobs.lose > 0) {
    --knobs.lose;
    return away();
  }
  network_->counters.connected = true;
  return ok_status();
}

template <typename T, typename Body>
Result<T> FakeRemote::run(RemoteCall call, const Body& body) {
  DIMS_TRY(enter(call));
  Result<T> answer = body();
  DIMS_TRY(leave(call));
  return answer;
}

template <typename Body>
Status FakeRemote::run_status(RemoteCall call, const Body& body) {
  DIMS_TRY(enter(call));
  Status answer = body();
  DIMS_TRY(leave(call));
  return answer;
}

void FakeRemote::set_available(bool available) {
  std::lock_guard lock(network_->mutex);
  if (network_->available && !available) ++network_->outage;
  network_->available = available;
  if (!available) network_->counters.connected = false;
  network_->changed.notify_all();
}

void FakeRemote::set_delay(std::chrono::milliseconds delay) {
  std::lock_guard lock(network_->mutex);
  network_->delay = delay;
}

void FakeRemote::hold(RemoteCall call) {
  std::lock_guard lock(network_->mutex);
  knobs_of(*network_, call).held = true;
}

void FakeRemote::release(RemoteCall call) {
  std::lock_guard lock(network_->mutex);
  knobs_of(*network_, call).held = false;
  network_->changed.notify_all();
}

void FakeRemote::lose_replies(RemoteCall call, int count) {
  std::lock_guard lock(network_->mutex);
  knobs_of(*network_, call).lose = count;
}

void FakeRemote::fail(RemoteCall call, Error error, int count) {
  std::lock_guard lock(network_->mutex);
  knobs_of(*network_, call).failure = std::move(error);
  knobs_of(*network_, call).failures = count;
}

std::uint64_t FakeRemote::calls(RemoteCall call) const {
  std::lock_guard lock(network_->mutex);
  return knobs_of(*network_, call).calls;
}

std::uint64_t FakeRemote::waiting(RemoteCall call) const {
  std::lock_guard lock(network_->mutex);
  return knobs_of(*network_, call).waiting;
}

std::vector<format::ObjectKey> FakeRemote::keys_got() const {
  std::lock_guard lock(network_->mutex);
  return network_->got;
}

std::vector<format::ObjectKey> FakeRemote::keys_put() const {
  std::lock_guard lock(network_->mutex);
  return network_->put;
}

void FakeRemote::forget_keys() {
  std::lock_guard lock(network_->mutex);
  network_->got.clear();
  network_->put.clear();
}

Result<ServerInfo> FakeRemote::hello() {
  return run<ServerInfo>(RemoteCall::kHello, [&] { return server_->hello(); });
}

Result<ImageInfo> FakeRemote::create_image(const ImageInfo& image) {
  return run<ImageInfo>(RemoteCall::kImages, [&] { return server_->create_image(image); });
}

Result<ImageInfo> FakeRemote::find_image(const std::string& name) {
  return run<ImageInfo>(RemoteCall::kImages, [&] { return server_->find_image(name); });
}

Result<ImageInfo> FakeRemote::get_image(const ImageId& id) {
  return run<ImageInfo>(RemoteCall::kImages, [&] { return server_->get_image(id); });
}

Result<std::vector<ImageInfo>> FakeRemote::list_images() {
  return run<std::vector<ImageInfo>>(RemoteCall::kImages, [&] { return server_->list_images(); });
}

Status FakeRemote::remove_image(const ImageRemoval& removal) {
  return run_status(RemoteCall::kImages, [&] { return server_->remove_image(removal); });
}

Result<VersionInfo> FakeRemote::get_version(const ImageId& image, const VersionId& version,
                                            std::uint64_t sequence) {
  return run<VersionInfo>(RemoteCall::kVersions,
                          [&] { return server_->get_version(image, version, sequence); });
}

Result<std::vector<VersionInfo>> FakeRemote::list_versions(const ImageId& image,
                                                           std::uint32_t limit) {
  return run<std::vector<VersionInfo>>(RemoteCall::kVersions,
                                       [&] { return server_->list_versions(image, limit); });
}

Result<SessionAnswer> FakeRemote::open_session(const SessionRequest& request) {
  return run<SessionAnswer>(RemoteCall::kSession, [&] { return server_->open_session(request); });
}

Status FakeRemote::close_session(const ImageId& image, const SessionId& session) {
  return run_status(RemoteCall::kSession, [&] { return server_->close_session(image, session); });
}

Result<LeaseGrant> FakeRemote::acquire_lease(const LeaseRequest& request) {
  return run<LeaseGrant>(RemoteCall::kLease, [&] { return server_->acquire_lease(request); });
}

Result<LeaseGrant> FakeRemote::renew_lease(const ImageId& image, const LeaseGrant& lease) {
  return run<LeaseGrant>(RemoteCall::kLease, [&] { return server_->renew_lease(image, lease); });
}

Status FakeRemote::release_lease(const ImageId& image, const LeaseGrant& lease) {
  return run_status(RemoteCall::kLease, [&] { return server_->release_lease(image, lease); });
}

Result<CommitAnswer> FakeRemote::commit(const CommitOrder& order) {
  return run<CommitAnswer>(RemoteCall::kCommit, [&] { return server_->commit(order); });
}

Status FakeRemote::get(const ImageId& image, std::span<const format::ObjectKey> keys,
                       Priority /*priority*/, const GetSink& sink) {
  DIMS_TRY(enter(RemoteCall::kGet));
  {
    std::lock_guard lock(network_->mutex);
    network_->got.insert(network_->got.end(), keys.begin(), keys.end());
  }
  DIMS_TRY(server_->get_image(image));
  DIMS_TRY(leave(RemoteCall::kGet));
  for (std::size_t i = 0; i < keys.size(); ++i) {
    Result<Bytes> object = server_->get_object(image, keys[i]);
    if (object.ok()) {
      if (format::object_id(*object) == keys[i].id) {
        std::lock_guard lock(network_->mutex);
        ++network_->counters.objects_received;
        network_->counters.bytes_received += object->size();
      } else {
        object = make_error(ErrorCode::kCorrupt,
                            "object " + keys[i].id.short_hex() + " arrived damaged");
      }
    }
    sink(i, std::move(object));
  }
  return ok_status();
}

Result<std::vector<bool>> FakeRemote::has(const ImageId& image,
                                          std::span<const format::ObjectKey> keys) {
  return run<std::vector<bool>>(RemoteCall::kHas, [&] { return server_->has(image, keys); });
}

Result<std::uint64_t> FakeRemote::put(const ImageId& image, std::span<const PutItem> items,
                                      Priority /*priority*/) {
  return run<std::uint64_t>(RemoteCall::kPut, [&] {
    {
      std::lock_guard lock(network_->mutex);
      for (const PutItem& item : items) network_->put.push_back(item.key);
    }
    const auto stored = server_->put(image, items);
    if (!stored.ok()) return stored;
    std::lock_guard lock(network_->mutex);
    for (const PutItem& item : items) {
      ++network_->counters.objects_sent;
      network_->counters.bytes_sent += item.object.size();
    }
    return stored;
  });
}

Status FakeRemote::diff(const ImageId& image, const VersionId& old_version,
                        const VersionId& new_version, const DiffSink& sink) {
  DIMS_TRY(enter(RemoteCall::kDiff));
  DIMS_ASSIGN(DiffPart part, server_->diff(image, old_version, new_version));
  DIMS_TRY(leave(RemoteCall::kDiff));
  if (!sink(std::move(part)))
    return make_error(ErrorCode::kCancelled, "the caller has seen enough");
  return ok_status();
}

Result<std::unique_ptr<EventStream>> FakeRemote::watch(const std::vector<ImageId>& images,
                                                       const SessionId& session) {
  return run<std::unique_ptr<EventStream>>(
      RemoteCall::kWatch, [&]() -> Result<std::unique_ptr<EventStream>> {
        for (const ImageId& image : images) {
          const auto there = server_->get_image(image);
          if (!there.ok()) return there.error();
        }
        return std::unique_ptr<EventStream>(
            std::make_unique<Stream>(server_, network_, images, session));
      });
}

Result<RemoteStoreInfo> FakeRemote::store_info() {
  return run<RemoteStoreInfo>(RemoteCall::kInfo, [&] { return server_->store_info(); });
}

RemoteCounters FakeRemote::counters() {
  std::lock_guard lock(network_->mutex);
  return network_->counters;
}

void FakeRemote::shutdown() {
  std::lock_guard lock(network_->mutex);
  network_->down = true;
  network_->counters.connected = false;
  network_->changed.notify_all();
}

}  // namespace dims::test
