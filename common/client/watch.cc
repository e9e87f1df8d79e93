#include "common/client/watch.h"

#include <deque>

#include "common/client/convert.h"
#include "common/client/grpc_status.h"

namespace dims::client {

using contract::ServerEvent;

namespace {

constexpr std::size_t kQueuedMax = 64;

}  // namespace

// What the reader of events sees; outlives the call.
class Watch {
 public:
  Watch(Lane& lane, std::string where)
      : where_(std::move(where)), call_(std::make_shared<Call>(lane)) {}

  static std::shared_ptr<Watch> start(Lane& lane, const std::string& where,
                                      const v1::WatchRequest& request);
  Result<ServerEvent> next(std::chrono::milliseconds timeout);
  // Nobody reads any more, or the connection ends.
  void cancel(const Error& why = shut_down_error());

 private:
  // The operation; gone when gRPC has given its status.
  struct Call {
    explicit Call(Lane& lane) : activity(lane) {}
    Lane::Activity activity;  // first: gone last
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientAsyncReader<v1::Event>> reader;
    Lane::Completion on_start, on_read, on_finish;
    v1::Event incoming;
    grpc::Status status;
  };

  void read_locked() {
    reading_ = true;
    call_->reader->Read(&call_->incoming, &call_->on_read);
  }
  void finish_locked() {
    ended_ = true;
    call_->reader->Finish(&call_->status, &call_->on_finish);
  }
  std::shared_ptr<void> started(bool ok);
  std::shared_ptr<void> was_read(bool ok);
  std::shared_ptr<void> finished();

  const std::string where_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::shared_ptr<Call> call_;   // null when it is over
  std::shared_ptr<Watch> self_;  // until then
  std::deque<ServerEvent> events_;
  std::optional<Error> broken_;
  bool reading_ = false;
  bool started_ = false;
  bool ended_ = false;
  bool cancelled_ = false;
};

std::shared_ptr<Watch> Watch::start(Lane& lane, const std::string& where,
                                    const v1::WatchRequest& request) {
  auto watch = std::make_shared<Watch>(lane, where);
  Watch* const w = watch.get();
  std::lock_guard lock(w->mutex_);
  w->self_ = watch;
  Call& call = *w->call_;
  call.on_start = [w](bool ok) { return w->started(ok); };
  call.on_read = [w](bool ok) { return w->was_read(ok); };
  call.on_finish = [w](bool) { return w->finished(); };
  call.reader = lane.stub()->AsyncWatch(&call.context, request, lane.queue(), &call.on_start);
  return watch;
}

std::shared_ptr<void> Watch::started(bool ok) {
  std::lock_guard lock(mutex_);
  started_ = true;
  if (ok) {
    read_locked();
  } else {
    finish_locked();
  }
  return nullptr;
}

std::shared_ptr<void> Watch::was_read(bool ok) {
  std::lock_guard lock(mutex_);
  reading_ = false;
  if (!ok) {
    finish_locked();
    return nullptr;
  }
  auto event = from_proto(call_->incoming);
  if (event.ok()) {
    events_.push_back(*event);
    arrived_.notify_one();
  }  // else: a kind of a newer server, which this client cannot act on
  if (cancelled_ || events_.size() < kQueuedMax) read_locked();
  return nullptr;
}

std::shared_ptr<void> Watch::finished() {
  std::lock_guard lock(mutex_);
  if (!broken_) {
    broken_ = call_->status.ok() ? make_error(ErrorCode::kUnavailable,
                                              "server " + where_ + " ended the announcements")
                                 : from_grpc(call_->status, where_);
  }
  arrived_.notify_one();
  // Both are dropped by the lane when this completion, which they hold, has returned.
  using Both = std::pair<std::shared_ptr<Call>, std::shared_ptr<Watch>>;
  return std::make_shared<Both>(std::move(call_), std::move(self_));
}

Result<ServerEvent> Watch::next(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  if (!arrived_.wait_for(lock, timeout, [&] { return !events_.empty() || broken_; })) {
    return make_error(ErrorCode::kDeadlineExceeded, "no event in time");
  }
  if (events_.empty()) return *broken_;
  ServerEvent event = std::move(events_.front());
  events_.pop_front();
  if (call_ && started_ && !reading_ && !ended_) read_locked();
  return event;
}

void Watch::cancel(const Error& why) {
  std::lock_guard lock(mutex_);
  cancelled_ = true;
  if (!broken_) broken_ = why;
  arrived_.notify_one();
  if (!call_) return;
  call_->context.TryCancel();
  // With nothing under way nobody would notice: a read that fails at once brings the end.
  if (started_ && !reading_ && !ended_) read_locked();
}

namespace {

class WatchHandle : public contract::EventStream {
 public:
  explicit WatchHandle(std::shared_ptr<Watch> watch) : watch_(std::move(watch)) {}
  ~WatchHandle() override { watch_->cancel(); }
  Result<ServerEvent> next(std::chrono::milliseconds timeout) override {
    return watch_->next(timeout);
  }
  void cancel() override { watch_->cancel(); }

 private:
  std::shared_ptr<Watch> watch_;
};

}  // namespace

Result<std::unique_ptr<contract::EventStream>> WatchList::open(const v1::WatchRequest& request) {
  std::lock_guard lock(mutex_);
  if (down_) return shut_down_error();
  std::erase_if(watches_, [](const std::weak_ptr<Watch>& watch) { return watch.expired(); });
  auto watch = Watch::start(lane_, where_, request);
  watches_.push_back(watch);
  return std::unique_ptr<contract::EventStream>(std::make_unique<WatchHandle>(std::move(watch)));
}

void WatchList::break_off(const Error& error) {
  std::vector<std::weak_ptr<Watch>> watches;
  {
    std::lock_guard lock(mutex_);
    watches.swap(watches_);
  }
  for (const auto& weak : watches) {
    if (const auto watch = weak.lock()) watch->cancel(error);
  }
}

void WatchList::shutdown() {
  std::vector<std::weak_ptr<Watch>> watches;
  {
    std::lock_guard lock(mutex_);
    down_ = true;
    watches = watches_;
  }
  for (const auto& weak : watches) {
    if (const auto watch = weak.lock()) watch->cancel();
  }
}

}  // namespace dims::client
