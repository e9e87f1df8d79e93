#include "tests/sim/sim_remote.h"

#include <algorithm>
#include <thread>

namespace dims::sim {

using namespace contract;  // NOLINT: this file is about nothing else

namespace {

constexpr std::chrono::seconds kTimeOut{60};  // after which a half-open connection is given up

Error away() { return make_error(ErrorCode::kUnavailable, "the simulated network lost it"); }

std::uint64_t hash_of(ByteView bytes) {
  std::uint64_t h = 0xcbf29ce484222325ull;
  for (const std::uint8_t b : bytes) h = (h ^ b) * 0x100000001b3ull;
  return h;
}

}  // namespace

SimRemote::SimRemote(SimServer& server, SimClock& clock, std::uint64_t seed,
                     const NetworkPlan& plan)
    : server_(server), clock_(clock), seed_(seed), plan_(plan), late_random_(mix(seed)) {}

void SimRemote::set_plan(const NetworkPlan& plan) {
  const std::lock_guard lock(mutex_);
  plan_ = plan;
}

void SimRemote::set_available(bool available) {
  const std::lock_guard lock(mutex_);
  available_ = available;
}

void SimRemote::set_stand_in(Bytes object) {
  const std::lock_guard lock(mutex_);
  stand_in_ = std::move(object);
}

std::uint64_t SimRemote::faults() const {
  const std::lock_guard lock(mutex_);
  std::uint64_t sum = 0;
  for (int i = 1; i < kFates; ++i) sum += faults_[i];
  return sum;
}

std::uint64_t SimRemote::faults(Fate fate) const {
  const std::lock_guard lock(mutex_);
  return faults_[static_cast<int>(fate)];
}

std::uint64_t SimRemote::wire_damages() const {
  const std::lock_guard lock(mutex_);
  return wire_damages_;
}

void SimRemote::deliver_late() {
  for (;;) {
    std::function<void()> call;
    {
      const std::lock_guard lock(mutex_);
      if (late_.empty()) return;
      const auto at = static_cast<std::ptrdiff_t>(late_random_.below(late_.size()));
      call = std::move(late_[static_cast<std::size_t>(at)]);
      late_.erase(late_.begin() + at);
    }
    call();
  }
}

SimRemote::Drawn SimRemote::draw(Call call, ByteView identity) {
  const std::lock_guard lock(mutex_);
  const std::uint64_t key = mix(hash_of(identity) + static_cast<std::uint64_t>(call));
  const std::uint64_t number = mix(seed_ ^ mix(key ^ mix(++made_[key])));
  Drawn drawn{Fate::kDelivered, mix(number)};
  const unsigned permille =
      call == Call::kGet || call == Call::kAsk ? plan_.demand_permille : plan_.change_percent * 10;
  if (number % 1000 >= permille) return drawn;
  drawn.fate = static_cast<Fate>(1 + drawn.number % (kFates - 1));
  ++faults_[static_cast<int>(drawn.fate)];
  return drawn;
}

// Something that was late may arrive before each call.
Status SimRemote::before(Call call) {
  std::function<void()> late;
  {
    const std::lock_guard lock(mutex_);
    if (down_) return make_error(ErrorCode::kCancelled, "the connection was shut down");
    if (!available_) return away();
    const bool driven = call == Call::kCommit || call == Call::kChange;  // not by upload threads
    if (driven && !late_.empty() && late_random_.below(3) == 0) {
      const auto at = static_cast<std::ptrdiff_t>(late_random_.below(late_.size()));
      late = std::move(late_[static_cast<std::size_t>(at)]);
      late_.erase(late_.begin() + at);
    }
  }
  if (late) late();
  return ok_status();
}

std::chrono::nanoseconds SimRemote::pause_of(const Drawn& drawn) const {
  const std::uint64_t seconds =
      mix(drawn.number + 1) % 4 == 0 ? 1 + mix(drawn.number) % 3600 : 1 + mix(drawn.number) % 120;
  return std::chrono::seconds(static_cast<std::int64_t>(seconds));
}

// body owns what it needs: it may run long after the call has returned.
template <typename T, typename Body>
Result<T> SimRemote::run(Call call, ByteView identity, Body body) {
  const auto alive = server_.alive();
  DIMS_TRY(before(call));
  const Drawn drawn = draw(call, identity);
  switch (drawn.fate) {
    case Fate::kDelivered:
      break;
    case Fate::kLostRequest:
      return away();
    case Fate::kCut:
    case Fate::kLostReply:
      (void)body().ok();
      return away();
    case Fate::kTwice: {
      Result<T> first = body();
      Result<T> second = body();
      return drawn.number % 2 == 0 ? std::move(first) : std::move(second);
    }
    case Fate::kLate: {
      const std::lock_guard lock(mutex_);
      late_.push_back([body]() mutable { (void)body().ok(); });
      return away();
    }
    case Fate::kHalfOpen:
      if (drawn.number % 2 == 0) (void)body().ok();
      clock_.advance(kTimeOut);
      return away();
    case Fate::kPause:
      clock_.advance(pause_of(drawn));
      break;
  }
  return body();
}

template <typename Body>
Status SimRemote::run_status(Call call, ByteView identity, Body body) {
  const Result<bool> done = run<bool>(call, identity, [body]() mutable -> Result<bool> {
    DIMS_TRY(body());
    return true;
  });
  return done.ok() ? ok_status() : Status(done.error());
}

Result<ServerInfo> SimRemote::hello() {
  return run<ServerInfo>(Call::kAsk, as_bytes("hello"), [this]() -> Result<ServerInfo> {
    return ServerInfo{server_.catalog().generation(), "sim", 1024, 4u << 20};
  });
}

Result<ImageInfo> SimRemote::create_image(const ImageInfo& image) {
  return run<ImageInfo>(Call::kChange, image.id.view(),
                        [this, image] { return server_.catalog().create_image(image); });
}

Result<ImageInfo> SimRemote::find_image(const std::string& name) {
  return run<ImageInfo>(Call::kAsk, as_bytes(name),
                        [this, name] { return server_.catalog().find_image(name); });
}

Result<ImageInfo> SimRemote::get_image(const ImageId& id) {
  return run<ImageInfo>(Call::kAsk, id.view(),
                        [this, id] { return server_.catalog().get_image(id); });
}

Result<std::vector<ImageInfo>> SimRemote::list_images() {
  return run<std::vector<ImageInfo>>(Call::kAsk, as_bytes("list"),
                                     [this]() -> Result<std::vector<ImageInfo>> {
                                       return server_.catalog().list_images("", 1000);
                                     });
}

Status SimRemote::remove_image(const ImageRemoval& removal) {
  return run_status(Call::kChange, removal.id.view(),
                    [this, removal] { return server_.catalog().remove_image(removal); });
}

Result<VersionInfo> SimRemote::get_version(const ImageId& image, const VersionId& version,
                                           std::uint64_t sequence) {
  return run<VersionInfo>(Call::kAsk, version.view(), [this, image, version, sequence] {
    return server_.catalog().get_version(image, version, sequence);
  });
}

Result<std::vector<VersionInfo>> SimRemote::list_versions(const ImageId& image,
                                                          std::uint32_t limit) {
  return run<std::vector<VersionInfo>>(
      Call::kAsk, image.view(), [this, image, limit]() -> Result<std::vector<VersionInfo>> {
        DIMS_ASSIGN(const ImageInfo info, server_.catalog().get_image(image));
        std::vector<VersionInfo> out;
        VersionId next = info.head;
        while (!next.is_zero() && (limit == 0 || out.size() < limit)) {
          DIMS_ASSIGN(VersionInfo version, server_.catalog().get_version(image, next, 0));
          next = version.record.parent;
          out.push_back(std::move(version));
        }
        return out;
      });
}

// Also by the disk's watch: no call of the driven thread's order.
Result<SessionAnswer> SimRemote::open_session(const SessionRequest& request) {
  return run<SessionAnswer>(Call::kAsk, request.session.view(),
                            [this, request] { return server_.catalog().open_session(request); });
}

Status SimRemote::close_session(const ImageId& image, const SessionId& session) {
  return run_status(Call::kChange, session.view(), [this, image, session] {
    return server_.catalog().close_session(image, session);
  });
}

Result<LeaseGrant> SimRemote::acquire_lease(const LeaseRequest& request) {
  return run<LeaseGrant>(Call::kChange, request.session.view(), [this, request] {
    auto grant = server_.acquire_lease(request);
    // Whoever is refused comes again later; time must not stand still.
    if (!grant.ok() && grant.error().code == ErrorCode::kLeaseHeld)
      clock_.advance(std::chrono::minutes(20));
    return grant;
  });
}

Result<LeaseGrant> SimRemote::renew_lease(const ImageId& image, const LeaseGrant& lease) {
  return run<LeaseGrant>(Call::kChange, lease.lease.view(),
                         [this, image, lease] { return server_.renew_lease(image, lease); });
}

Status SimRemote::release_lease(const ImageId& image, const LeaseGrant& lease) {
  return run_status(Call::kChange, lease.lease.view(),
                    [this, image, lease] { return server_.release_lease(image, lease); });
}

Result<CommitAnswer> SimRemote::commit(const CommitOrder& order) {
  return run<CommitAnswer>(Call::kCommit, order.parent.view(),
                           [this, order] { return server_.commit(order); });
}

Status SimRemote::get(const ImageId& image, std::span<const format::ObjectKey> keys,
                      Priority /*priority*/, const GetSink& sink) {
  DIMS_TRY(before(Call::kGet));
  const Drawn drawn = draw(Call::kGet, keys.empty() ? ByteView() : keys.front().id.view());
  std::size_t arrives = keys.size();
  switch (drawn.fate) {
    case Fate::kLostRequest:
    case Fate::kLostReply:
    case Fate::kLate:
      return away();
    case Fate::kHalfOpen:
      clock_.advance(kTimeOut);
      return away();
    case Fate::kCut:
      arrives = drawn.number % (keys.size() + 1);
      break;
    case Fate::kPause:
      clock_.advance(pause_of(drawn));
      break;
    default:
      break;
  }
  DIMS_TRY(server_.catalog().check_access(image, keys, catalog::Access::kRead));
  server_.objects().get(keys.first(arrives), [&](std::size_t i, Result<Bytes> object) {
    if (object.ok()) {
      const std::uint64_t chance = mix(seed_ ^ mix(hash_of(keys[i].id.view()) + drawn.number));
      const std::lock_guard lock(mutex_);
      if (chance % 1000 < plan_.wire_damage_permille && !object->empty()) {
        ++wire_damages_;
        if (chance / 1000 % 3 == 0 && !stand_in_.empty())
          *object = stand_in_;
        else if (chance / 1000 % 3 == 1)
          object->resize(mix(chance) % object->size());
        else
          (*object)[mix(chance) % object->size()] ^= static_cast<std::uint8_t>(1 + chance % 255);
      }
      counters_.bytes_received += object->size();
      ++counters_.objects_received;
    }
    // What the real client does with everything that arrives (common/client/transfer.cc).
    if (object.ok() && !(format::object_id(*object) == keys[i].id))
      object = make_error(ErrorCode::kCorrupt, "object " + keys[i].id.short_hex() + " is damaged");
    sink(i, std::move(object));
    return true;
  });
  return arrives == keys.size() ? ok_status() : Status(away());
}

Result<std::vector<bool>> SimRemote::has(const ImageId& image,
                                         std::span<const format::ObjectKey> keys) {
  std::vector<format::ObjectKey> own(keys.begin(), keys.end());
  return run<std::vector<bool>>(
      Call::kHas, own.empty() ? ByteView() : own.front().id.view(),
      [this, image, own]() -> Result<std::vector<bool>> {
        DIMS_TRY(server_.catalog().check_access(image, own, catalog::Access::kWrite));
        return server_.objects().has(own);
      });
}

Result<std::uint64_t> SimRemote::put(const ImageId& image, std::span<const PutItem> items,
                                     Priority /*priority*/) {
  struct Owned {
    format::ObjectKey key;
    Bytes object;
  };
  auto own = std::make_shared<std::vector<Owned>>();
  for (const PutItem& item : items)
    own->push_back({item.key, Bytes(item.object.begin(), item.object.end())});
  const auto store = [this, image, own](std::size_t count) -> Result<std::uint64_t> {
    std::vector<format::ObjectKey> keys;
    std::vector<ObjectStore::PutItem> out;
    for (std::size_t i = 0; i < count; ++i) {
      keys.push_back((*own)[i].key);
      out.push_back({(*own)[i].key, (*own)[i].object});
    }
    DIMS_TRY(server_.catalog().check_access(image, keys, catalog::Access::kWrite));
    DIMS_ASSIGN(const auto outcomes, server_.objects().put(out));
    return static_cast<std::uint64_t>(
        std::count(outcomes.begin(), outcomes.end(), PutOutcome::kStored));
  };
  DIMS_TRY(before(Call::kPut));
  const Drawn drawn = draw(Call::kPut, items.empty() ? ByteView() : items.front().key.id.view());
  switch (drawn.fate) {
    case Fate::kLostRequest:
      return away();
    case Fate::kCut:  // in the middle of the list
      (void)store(drawn.number % (own->size() + 1)).ok();
      return away();
    case Fate::kLate: {
      const std::lock_guard lock(mutex_);
      late_.push_back([store, own] { (void)store(own->size()).ok(); });
      return away();
    }
    case Fate::kHalfOpen:
      (void)store(drawn.number % (own->size() + 1)).ok();
      clock_.advance(kTimeOut);
      return away();
    case Fate::kLostReply:
      (void)store(own->size()).ok();
      return away();
    case Fate::kTwice:
      (void)store(own->size()).ok();
      break;
    case Fate::kPause:
      clock_.advance(pause_of(drawn));
      break;
    case Fate::kDelivered:
      break;
  }
  return store(own->size());
}

Status SimRemote::diff(const ImageId& image, const VersionId& old_version,
                       const VersionId& new_version, const DiffSink& sink) {
  DIMS_TRY(before(Call::kAsk));
  const Drawn drawn = draw(Call::kAsk, new_version.view());
  const bool cut = drawn.fate != Fate::kDelivered && drawn.fate != Fate::kTwice;
  DIMS_ASSIGN(const auto list, server_.catalog().diff(image, old_version, new_version));
  for (std::uint64_t parts = 0;; ++parts) {
    DIMS_ASSIGN(auto part, list->next(4096));
    if (!part) return ok_status();
    if (cut && parts == drawn.number % 3) return away();
    if (!sink(std::move(*part)))
      return make_error(ErrorCode::kCancelled, "the caller has seen enough");
  }
}

Result<std::unique_ptr<EventStream>> SimRemote::watch(const std::vector<ImageId>& /*images*/,
                                                      const SessionId& /*session*/) {
  // Says "ready" all the time and nothing else: whoever pauses before it asks again is woken at
  // once, so that real time passes only where it must.
  class Stream : public EventStream {
    Result<ServerEvent> next(std::chrono::milliseconds /*timeout*/) override {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      return ServerEvent{};
    }
  };
  return std::unique_ptr<EventStream>(std::make_unique<Stream>());
}

Result<RemoteStoreInfo> SimRemote::store_info() {
  return make_error(ErrorCode::kUnsupported, "not simulated");
}

RemoteCounters SimRemote::counters() {
  const std::lock_guard lock(mutex_);
  RemoteCounters out = counters_;
  out.connected = available_ && !down_;
  return out;
}

void SimRemote::shutdown() {
  const std::lock_guard lock(mutex_);
  down_ = true;
}

}  // namespace dims::sim
