#include "common/client/remote.h"

#include "common/base/clock.h"
#include "common/client/convert.h"

namespace dims::client {

using namespace contract;  // NOLINT: this file speaks of nothing else
using Stub = v1::Dims::Stub;

namespace {

constexpr std::uint32_t kProtocol = 1;
constexpr std::uint32_t kImagesPerPage = 500;
constexpr std::size_t kRequestsInFlightDefault = 64;
constexpr std::size_t kMessageOverhead = 64 * 1024;  // keys and framing beside the objects of a put

std::string fresh_key() {
  return std::string(as_text(system_random().id<Id<struct IdempotencyKeyTag, 16>>().view()));
}

}  // namespace

GrpcRemote::GrpcRemote(ClientOptions options, const Endpoint& endpoint)
    : options_(std::move(options)),
      budget_(std::make_shared<ByteBudget>(options_.put_bytes_in_flight_max)),
      demand_(std::make_unique<Lane>(endpoint)),
      bulk_(std::make_unique<Lane>(endpoint)),
      demand_transfer_(*demand_, options_.address, budget_, counters_),
      bulk_transfer_(*bulk_, options_.address, budget_, counters_),
      watches_(*demand_, options_.address) {
  if (!options_.network || !endpoint.pin) return;  // nobody roams on a UNIX socket
  const auto server = parse_host_port(options_.address);
  roaming_ = std::make_unique<Roaming>(Roaming::Parts{
      options_.network, server.ok() ? server->host : std::string(),
      [this] { return demand_->connected(); }, [this](const std::string& why) { rebuild(why); }});
}

GrpcRemote::~GrpcRemote() {
  shutdown();
  // The lanes wait for their last operation, which reports to the streams: lanes first.
  demand_.reset();
  bulk_.reset();
}

void GrpcRemote::rebuild(const std::string& why) {
  const Error changed =
      make_error(ErrorCode::kUnavailable, "the way to " + options_.address + " has changed: " + why,
                 "it is tried again at once");
  {
    std::lock_guard lock(hello_mutex_);
    known_.reset();
    ++connection_;
  }
  // New ones first: what fails now may be tried again before this is over.
  demand_->reconnect();
  bulk_->reconnect();
  calls_.break_all();
  demand_transfer_.break_off(changed);
  bulk_transfer_.break_off(changed);
  watches_.break_off(changed);
  std::lock_guard lock(rebuilt_mutex_);
  if (on_rebuilt_) on_rebuilt_();
}

void GrpcRemote::on_rebuilt(std::function<void()> call) {
  std::lock_guard lock(rebuilt_mutex_);
  on_rebuilt_ = std::move(call);
}

void GrpcRemote::shutdown() {
  if (roaming_) roaming_->stop();
  calls_.cancel_all();
  budget_->shutdown();
  demand_transfer_.shutdown();
  bulk_transfer_.shutdown();
  watches_.shutdown();
}

Error GrpcRemote::failed(const grpc::Status& status, std::uint64_t connection) {
  if (calls_.down()) return shut_down_error();
  Error error = from_grpc(status, options_.address);
  note(error, connection);
  return error;
}

// Not a matter of the network: it says one thing when asked for another.
Error GrpcRemote::another(const std::string& what) const {
  return make_error(ErrorCode::kCorrupt,
                    "server " + options_.address + " answered with another " + what + " than asked",
                    "ask whoever runs the server");
}

void GrpcRemote::note(const Error& error, std::uint64_t connection) {
  if (error.code != ErrorCode::kUnavailable) return;
  std::lock_guard lock(hello_mutex_);
  if (connection != connection_) return;  // one that was given up
  if (known_) ++losses_;
  known_.reset();
}

template <typename Request, typename Reply>
Result<Reply> GrpcRemote::ask(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                           Reply*),
                              const Request& request, std::string* peer) {
  grpc::ClientContext context;
  CallRegistry::Scope scope(calls_, context);
  Reply reply;
  const std::uint64_t connection = connection_;
  const auto stub = demand_->stub();
  const grpc::Status status = ((*stub).*method)(&context, request, &reply);
  if (!status.ok()) return failed(status, connection);
  if (peer != nullptr) *peer = context.peer();
  return reply;
}

template <typename Request, typename Reply>
Result<Reply> GrpcRemote::call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                            Reply*),
                               const Request& request) {
  DIMS_TRY(known());
  return ask(method, request);
}

Result<GrpcRemote::Known> GrpcRemote::say_hello() {
  v1::HelloRequest request;
  request.set_protocol(kProtocol);
  put_id(options_.machine, request.mutable_machine());
  request.set_machine_name(options_.machine_name);
  put_id(options_.session, request.mutable_session());
  std::string peer;
  DIMS_ASSIGN(const v1::HelloReply reply, ask(&Stub::Hello, request, &peer));
  if (reply.protocol() != kProtocol) {
    return make_error(ErrorCode::kUnsupported,
                      "server " + options_.address + " speaks protocol " +
                          std::to_string(reply.protocol()) + ", this program " +
                          std::to_string(kProtocol),
                      "update the older of client and server");
  }
  Known known;
  DIMS_TRY(take_id(reply.generation(), "generation", known.info.generation));
  known.info.version = reply.server_version();
  known.info.max_objects_per_request = reply.limits().max_objects_per_request();
  known.info.max_message_bytes = reply.limits().max_message_bytes();
  const auto at_most = [](std::size_t wanted, std::size_t limit) {
    return limit == 0 ? wanted : std::min(wanted, limit);
  };
  known.limits.keys =
      at_most(std::max(options_.keys_per_request, 1U), known.info.max_objects_per_request);
  const std::size_t message = known.info.max_message_bytes;
  known.limits.put_bytes =
      at_most(static_cast<std::size_t>(options_.put_request_bytes),
              message > kMessageOverhead ? message - kMessageOverhead : message);
  known.limits.in_flight_per_call = std::max(options_.requests_in_flight_per_call, 1U);
  const std::size_t in_flight =
      at_most(kRequestsInFlightDefault, reply.limits().max_requests_in_flight());
  demand_transfer_.set_requests_in_flight(in_flight);
  bulk_transfer_.set_requests_in_flight(in_flight);
  if (roaming_) roaming_->reached(peer);
  spdlog::info("connected to {} (version {}, generation {})", options_.address, known.info.version,
               known.info.generation.short_hex());
  return known;
}

Result<GrpcRemote::Known> GrpcRemote::known() {
  std::unique_lock lock(hello_mutex_);
  if (calls_.down()) return shut_down_error();
  if (known_) return *known_;
  if (hello_running_) {
    const std::uint64_t round = hello_round_;
    hello_done_.wait(lock, [&] { return hello_round_ != round; });
    return *last_hello_;
  }
  hello_running_ = true;
  lock.unlock();
  Result<Known> answer = say_hello();
  lock.lock();
  hello_running_ = false;
  ++hello_round_;
  if (answer.ok()) known_ = *answer;
  last_hello_ = answer;
  hello_done_.notify_all();
  return answer;
}

Result<ServerInfo> GrpcRemote::hello() {
  {
    std::lock_guard lock(hello_mutex_);
    known_.reset();
  }
  DIMS_ASSIGN(const Known now, known());
  return now.info;
}

Result<ImageInfo> GrpcRemote::create_image(const ImageInfo& image) {
  DIMS_ASSIGN(const v1::Image reply, call(&Stub::CreateImage, to_proto(image)));
  DIMS_ASSIGN(ImageInfo made, from_proto(reply));
  if (!(made.id == image.id)) return another("image");
  return made;
}

Result<ImageInfo> GrpcRemote::find_image(const std::string& name) {
  v1::GetImageRequest request;
  request.set_name(name);
  DIMS_ASSIGN(const v1::Image reply, call(&Stub::GetImage, request));
  if (reply.name() != name) return another("image");
  return from_proto(reply);
}

Result<ImageInfo> GrpcRemote::get_image(const ImageId& id) {
  v1::GetImageRequest request;
  put_id(id, request.mutable_id());
  DIMS_ASSIGN(const v1::Image reply, call(&Stub::GetImage, request));
  DIMS_ASSIGN(ImageInfo image, from_proto(reply));
  if (!(image.id == id)) return another("image");
  return image;
}

Result<std::vector<ImageInfo>> GrpcRemote::list_images() {
  std::vector<ImageInfo> images;
  v1::ListImagesRequest request;
  request.set_limit(kImagesPerPage);
  for (;;) {
    DIMS_ASSIGN(const v1::ListImagesReply reply, call(&Stub::ListImages, request));
    for (const v1::Image& image : reply.images()) {
      DIMS_ASSIGN(ImageInfo info, from_proto(image));
      // By name: so a list that begins again has an end.
      if (!images.empty() && !(images.back().name < info.name)) return another("list of images");
      images.push_back(std::move(info));
    }
    if (!reply.more() || reply.images().empty()) return images;
    request.set_after_name(images.back().name);
  }
}

Status GrpcRemote::remove_image(const ImageRemoval& removal) {
  v1::RemoveImageRequest request;
  put_id(removal.id, request.mutable_id());
  put_id(removal.head, request.mutable_head());
  put_id(removal.lease, request.mutable_lease());
  request.set_token(removal.token);
  request.set_idempotency_key(fresh_key());
  DIMS_TRY(call(&Stub::RemoveImage, request));
  return ok_status();
}

Result<VersionInfo> GrpcRemote::get_version(const ImageId& image, const VersionId& version,
                                            std::uint64_t sequence) {
  v1::GetVersionRequest request;
  put_id(image, request.mutable_image());
  put_id(version, request.mutable_version());
  request.set_sequence(sequence);
  DIMS_ASSIGN(const v1::Version reply, call(&Stub::GetVersion, request));
  DIMS_ASSIGN(VersionInfo info, from_proto(reply));
  if ((!version.is_zero() && !(info.id == version)) ||
      (sequence != 0 && info.record.sequence != sequence)) {
    return another("version");
  }
  return info;
}

Result<std::vector<VersionInfo>> GrpcRemote::list_versions(const ImageId& image,
                                                           std::uint32_t limit) {
  DIMS_TRY(known());
  v1::ListVersionsRequest request;
  put_id(image, request.mutable_image());
  request.set_limit(limit);
  grpc::ClientContext context;
  CallRegistry::Scope scope(calls_, context);
  const std::uint64_t connection = connection_;
  const auto stub = demand_->stub();
  const auto reader = stub->ListVersions(&context, request);
  std::vector<VersionInfo> versions;
  std::size_t bytes = 0;
  std::optional<Error> bad;
  v1::Version version;
  while (reader->Read(&version)) {
    if (bad) continue;
    Result<VersionInfo> info = from_proto(version);
    if (info.ok() && limit != 0 && versions.size() == limit) info = another("list of versions");
    // Newest first: so a list that begins again has an end.
    if (info.ok() && !versions.empty() && info->record.sequence >= versions.back().record.sequence)
      info = another("list of versions");
    if ((bytes += version.ByteSizeLong()) > kListBytesMax)
      info = endless_list("versions", options_.address);
    if (info.ok()) {
      versions.push_back(*std::move(info));
    } else {
      bad = info.error();
      context.TryCancel();
    }
  }
  const grpc::Status status = reader->Finish();
  if (bad) return *bad;
  if (!status.ok()) return failed(status, connection);
  return versions;
}

Result<SessionAnswer> GrpcRemote::open_session(const SessionRequest& session) {
  v1::OpenSessionRequest request;
  put_id(session.image, request.mutable_image());
  put_id(session.session, request.mutable_session());
  put_id(session.machine, request.mutable_machine());
  request.set_machine_name(session.machine_name);
  request.set_mode(session.mode);
  put_id(session.base, request.mutable_base());
  put_id(session.journal, request.mutable_journal());
  request.set_unsent_bytes(session.unsent_bytes);
  DIMS_ASSIGN(const v1::OpenSessionReply reply, call(&Stub::OpenSession, request));
  DIMS_ASSIGN(SessionAnswer answer, from_proto(reply));
  const bool ours =
      !answer.newest_of_journal || answer.newest_of_journal->journal == session.journal;
  if (!(answer.image.id == session.image) || !ours) return another("session");
  return answer;
}

Status GrpcRemote::close_session(const ImageId& image, const SessionId& session) {
  v1::CloseSessionRequest request;
  put_id(image, request.mutable_image());
  put_id(session, request.mutable_session());
  DIMS_TRY(call(&Stub::CloseSession, request));
  return ok_status();
}

Result<LeaseGrant> GrpcRemote::acquire_lease(const LeaseRequest& lease) {
  v1::AcquireLeaseRequest request;
  put_id(lease.image, request.mutable_image());
  put_id(lease.session, request.mutable_session());
  put_id(lease.machine, request.mutable_machine());
  request.set_machine_name(lease.machine_name);
  request.set_idempotency_key(fresh_key());
  request.set_take_over(lease.take_over);
  request.set_hand_off(lease.hand_off);
  DIMS_ASSIGN(const v1::Lease reply, call(&Stub::AcquireLease, request));
  return from_proto(reply);
}

Result<LeaseGrant> GrpcRemote::renew_lease(const ImageId& image, const LeaseGrant& lease) {
  v1::RenewLeaseRequest request;
  put_id(image, request.mutable_image());
  put_id(lease.lease, request.mutable_lease());
  request.set_token(lease.token);
  request.set_unsent_bytes(lease.unsent_bytes);
  DIMS_ASSIGN(const v1::Lease reply, call(&Stub::RenewLease, request));
  return from_proto(reply);
}

Status GrpcRemote::release_lease(const ImageId& image, const LeaseGrant& lease) {
  v1::ReleaseLeaseRequest request;
  put_id(image, request.mutable_image());
  put_id(lease.lease, request.mutable_lease());
  request.set_token(lease.token);
  DIMS_TRY(call(&Stub::ReleaseLease, request));
  return ok_status();
}

Result<CommitAnswer> GrpcRemote::commit(const CommitOrder& order) {
  v1::CommitRequest request;
  put_id(order.image, request.mutable_image());
  put_id(order.lease, request.mutable_lease());
  request.set_token(order.token);
  put_id(order.parent, request.mutable_parent());
  request.set_record(order.record.data(), order.record.size());
  DIMS_ASSIGN(const v1::CommitReply reply, call(&Stub::Commit, request));
  return from_proto(reply);
}

Status GrpcRemote::get(const ImageId& image, std::span<const format::ObjectKey> keys,
                       Priority priority, const GetSink& sink) {
  DIMS_ASSIGN(const Known server, known());
  const std::uint64_t connection = connection_;
  Status got = transfer(priority).get(server.limits, image, keys, priority, sink);
  if (!got.ok()) note(got.error(), connection);
  return got;
}

Result<std::vector<bool>> GrpcRemote::has(const ImageId& image,
                                          std::span<const format::ObjectKey> keys) {
  DIMS_ASSIGN(const Known server, known());
  const std::uint64_t connection = connection_;
  auto present = bulk_transfer_.has(server.limits, image, keys);
  if (!present.ok()) note(present.error(), connection);
  return present;
}

Result<std::uint64_t> GrpcRemote::put(const ImageId& image, std::span<const PutItem> items,
                                      Priority priority) {
  DIMS_ASSIGN(const Known server, known());
  const std::uint64_t connection = connection_;
  auto stored = transfer(priority).put(server.limits, image, items, priority);
  if (!stored.ok()) note(stored.error(), connection);
  return stored;
}

Status GrpcRemote::diff(const ImageId& image, const VersionId& old_version,
                        const VersionId& new_version, const DiffSink& sink) {
  DIMS_TRY(known());
  v1::DiffRequest request;
  put_id(image, request.mutable_image());
  put_id(old_version, request.mutable_old_version());
  put_id(new_version, request.mutable_new_version());
  grpc::ClientContext context;
  CallRegistry::Scope scope(calls_, context);
  // On the bulk lane: the nodes of a large image are many megabytes.
  const std::uint64_t connection = connection_;
  const auto stub = bulk_->stub();
  const auto reader = stub->Diff(&context, request);
  Status outcome;
  v1::DiffReply reply;
  while (reader->Read(&reply)) {
    if (!outcome.ok()) continue;
    Result<DiffPart> part = from_proto(reply);
    if (!part.ok()) {
      outcome = part.error();
    } else if (!sink(*std::move(part))) {
      outcome = make_error(ErrorCode::kCancelled, "the caller has seen enough");
    }
    if (!outcome.ok()) context.TryCancel();
  }
  const grpc::Status status = reader->Finish();
  if (!outcome.ok()) return outcome;
  if (!status.ok()) return failed(status, connection);
  return ok_status();
}

Result<std::unique_ptr<EventStream>> GrpcRemote::watch(const std::vector<ImageId>& images,
                                                       const SessionId& session) {
  DIMS_TRY(known());
  v1::WatchRequest request;
  for (const ImageId& image : images) put_id(image, request.add_images());
  put_id(session, request.mutable_session());
  return watches_.open(request);
}

Result<RemoteStoreInfo> GrpcRemote::store_info() {
  DIMS_ASSIGN(const v1::StoreInfoReply reply, call(&Stub::StoreInfo, v1::StoreInfoRequest()));
  return from_proto(reply);
}

RemoteCounters GrpcRemote::counters() {
  RemoteCounters out;
  out.bytes_received = counters_.bytes_received;
  out.bytes_sent = counters_.bytes_sent;
  out.objects_received = counters_.objects_received;
  out.objects_sent = counters_.objects_sent;
  out.connected = demand_->connected();
  if (roaming_) {
    const RoamingCounts roaming = roaming_->counts();
    out.rebuilt = roaming.rebuilt;
    out.network_changes = roaming.changes;
    out.rebuilt_because = roaming.because;
  }
  std::lock_guard lock(hello_mutex_);
  out.losses = losses_;
  return out;
}

Result<std::unique_ptr<Remote>> connect(const ClientOptions& options) {
  DIMS_ASSIGN(Endpoint endpoint, parse_endpoint(options.address, options.known_servers));
  endpoint.token = options.token;
  if (endpoint.pin && options.pin) endpoint.pin = options.pin;
  ClientOptions named = options;
  named.address = endpoint.address;
  return std::unique_ptr<Remote>(std::make_unique<GrpcRemote>(std::move(named), endpoint));
}

}  // namespace dims::client
