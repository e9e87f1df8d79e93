#include "tests/unit/client_service.h"

#include <grpcpp/security/tls_credentials_options.h>

#include <algorithm>
#include <random>
#include <thread>

#include "common/client/convert.h"
#include "common/client/grpc_status.h"
#include "common/crypto/certificate.h"
#include "tests/support/seed.h"

namespace dims::test {

using client::put_id;
using client::to_detail;
using client::to_proto;
using grpc::Status;

namespace {

template <typename IdType>
IdType id_of(const std::string& bytes) {
  IdType id;
  if (!client::take_id(bytes, "id", id).ok())
    std::abort();  // the client never sends another length
  return id;
}

format::ObjectKey key_of(const v1::ObjectKey& key) {
  return {id_of<DomainId>(key.domain()), id_of<ObjectId>(key.id())};
}

void holder_to(const contract::HolderInfo& holder, v1::LeaseHolder& out) {
  put_id(holder.machine, out.mutable_machine());
  out.set_machine_name(holder.machine_name);
  put_id(holder.session, out.mutable_session());
  out.set_expires_in_ms(static_cast<std::uint64_t>(holder.expires_in.count()));
}

void image_to(const contract::ImageInfo& image, v1::Image& out) {
  put_id(image.id, out.mutable_id());
  out.set_name(image.name);
  out.set_image_bytes(image.image_bytes);
  out.mutable_tree()->set_leaf_pages(image.tree.leaf_pages);
  out.mutable_tree()->set_fanout(image.tree.fanout);
  out.mutable_tree()->set_chunk_mean_bytes(image.tree.chunk_mean_bytes);
  put_id(image.domain, out.mutable_domain());
  put_id(image.key_check, out.mutable_key_check());
  put_id(image.head, out.mutable_head());
  out.set_head_sequence(image.head_sequence);
  put_id(image.origin, out.mutable_origin());
  out.set_created_unix_ns(image.created_unix_ns);
  if (image.holder) holder_to(*image.holder, *out.mutable_holder());
  out.set_conflict_of(image.conflict_of);
  for (const std::string& branch : image.branches) out.add_branches(branch);
}

void version_to(const contract::VersionInfo& version, v1::Version& out) {
  put_id(version.id, out.mutable_id());
  out.set_record(version.record_bytes.data(), version.record_bytes.size());
}

void lease_to(const contract::LeaseGrant& lease, v1::Lease& out) {
  put_id(lease.lease, out.mutable_lease());
  out.set_token(lease.token);
  out.set_term_ms(static_cast<std::uint64_t>(lease.term.count()));
}

template <typename Request>
contract::LeaseGrant lease_of(const Request& request) {
  return {id_of<LeaseId>(request.lease()), request.token(), {}};
}

}  // namespace

Status TestService::status_of(const Error& error) {
  std::lock_guard lock(behaviour_.mutex);
  const Status full = client::to_grpc(error);
  return behaviour_.bare_errors ? Status(full.error_code(), full.error_message()) : full;
}

Status TestService::Hello(Context*, const v1::HelloRequest* request, v1::HelloReply* reply) {
  const auto info = server_->hello();
  reply->set_protocol(request->protocol());
  put_id(info.generation, reply->mutable_generation());
  reply->set_server_version(info.version);
  std::lock_guard lock(behaviour_.mutex);
  ++behaviour_.hellos;
  *reply->mutable_limits() = behaviour_.limits;
  return Status::OK;
}

Status TestService::CreateImage(Context*, const v1::CreateImageRequest* request, v1::Image* reply) {
  contract::ImageInfo asked;
  asked.id = id_of<ImageId>(request->id());
  asked.name = request->name();
  asked.image_bytes = request->image_bytes();
  asked.tree.leaf_pages = static_cast<std::uint16_t>(request->tree().leaf_pages());
  asked.tree.fanout = static_cast<std::uint16_t>(request->tree().fanout());
  asked.tree.chunk_mean_bytes = request->tree().chunk_mean_bytes();
  asked.domain = id_of<DomainId>(request->domain());
  asked.key_check = id_of<Digest>(request->key_check());
  asked.origin = id_of<VersionId>(request->origin());
  asked.conflict_of = request->conflict_of();
  const auto made = server_->create_image(asked);
  if (!made.ok()) return status_of(made.error());
  image_to(*made, *reply);
  return Status::OK;
}

Status TestService::GetImage(Context*, const v1::GetImageRequest* request, v1::Image* reply) {
  const auto found = request->id().empty() ? server_->find_image(request->name())
                                           : server_->get_image(id_of<ImageId>(request->id()));
  if (!found.ok()) return status_of(found.error());
  image_to(*found, *reply);
  return Status::OK;
}

// Two a page, so that the client has to ask again.
Status TestService::ListImages(Context*, const v1::ListImagesRequest* request,
                               v1::ListImagesReply* reply) {
  for (const auto& image : server_->list_images()) {
    if (image.name <= request->after_name()) continue;
    if (reply->images_size() == 2) {
      reply->set_more(true);
      break;
    }
    image_to(image, *reply->add_images());
  }
  return Status::OK;
}

Status TestService::RemoveImage(Context*, const v1::RemoveImageRequest* request,
                                v1::RemoveImageReply*) {
  if (request->idempotency_key().size() != 16)
    return {grpc::StatusCode::INVALID_ARGUMENT, "idempotency key"};
  contract::ImageRemoval removal(id_of<ImageId>(request->id()));
  removal.head = id_of<VersionId>(request->head());
  removal.lease = id_of<LeaseId>(request->lease());
  removal.token = request->token();
  const auto done = server_->remove_image(removal);
  return done.ok() ? Status::OK : status_of(done.error());
}

Status TestService::GetVersion(Context*, const v1::GetVersionRequest* request, v1::Version* reply) {
  const auto found = server_->get_version(
      id_of<ImageId>(request->image()), id_of<VersionId>(request->version()), request->sequence());
  if (!found.ok()) return status_of(found.error());
  version_to(*found, *reply);
  return Status::OK;
}

Status TestService::ListVersions(Context*, const v1::ListVersionsRequest* request,
                                 grpc::ServerWriter<v1::Version>* writer) {
  const auto versions = server_->list_versions(id_of<ImageId>(request->image()), request->limit());
  if (!versions.ok()) return status_of(versions.error());
  for (const auto& version : *versions) {
    v1::Version message;
    version_to(version, message);
    writer->Write(message);
  }
  return Status::OK;
}

Status TestService::OpenSession(Context*, const v1::OpenSessionRequest* request,
                                v1::OpenSessionReply* reply) {
  const auto answer = server_->open_session(
      {id_of<ImageId>(request->image()), id_of<SessionId>(request->session()),
       id_of<MachineId>(request->machine()), request->machine_name(), request->mode(),
       id_of<VersionId>(request->base()), id_of<JournalId>(request->journal())});
  if (!answer.ok()) return status_of(answer.error());
  image_to(answer->image, *reply->mutable_image());
  if (answer->newest_of_journal) {
    auto& point = *reply->mutable_newest_of_journal();
    put_id(answer->newest_of_journal->journal, point.mutable_journal());
    point.set_epoch(answer->newest_of_journal->epoch);
    put_id(answer->newest_of_journal->digest, point.mutable_digest());
  }
  put_id(answer->newest_version, reply->mutable_newest_version());
  return Status::OK;
}

Status TestService::CloseSession(Context*, const v1::CloseSessionRequest* request,
                                 v1::CloseSessionReply*) {
  const auto done = server_->close_session(id_of<ImageId>(request->image()),
                                           id_of<SessionId>(request->session()));
  return done.ok() ? Status::OK : status_of(done.error());
}

Status TestService::AcquireLease(Context*, const v1::AcquireLeaseRequest* request,
                                 v1::Lease* reply) {
  if (request->idempotency_key().size() != 16)
    return {grpc::StatusCode::INVALID_ARGUMENT, "idempotency key"};
  const auto lease = server_->acquire_lease(
      {id_of<ImageId>(request->image()), id_of<SessionId>(request->session()),
       id_of<MachineId>(request->machine()), request->machine_name(), request->take_over()});
  if (!lease.ok()) return status_of(lease.error());
  lease_to(*lease, *reply);
  return Status::OK;
}

Status TestService::RenewLease(Context*, const v1::RenewLeaseRequest* request, v1::Lease* reply) {
  const auto lease = server_->renew_lease(id_of<ImageId>(request->image()), lease_of(*request));
  if (!lease.ok()) return status_of(lease.error());
  lease_to(*lease, *reply);
  return Status::OK;
}

Status TestService::ReleaseLease(Context*, const v1::ReleaseLeaseRequest* request,
                                 v1::ReleaseLeaseReply*) {
  const auto done = server_->release_lease(id_of<ImageId>(request->image()), lease_of(*request));
  return done.ok() ? Status::OK : status_of(done.error());
}

Status TestService::Commit(Context* context, const v1::CommitRequest* request,
                           v1::CommitReply* reply) {
  {
    std::unique_lock lock(behaviour_.mutex);
    while (behaviour_.hold_unary && !behaviour_.stopping && !context->IsCancelled()) {
      behaviour_.changed.wait_for(lock, std::chrono::milliseconds(10));
    }
  }
  const ByteView record = as_bytes(request->record());
  const auto answer = server_->commit(
      {id_of<ImageId>(request->image()), id_of<LeaseId>(request->lease()), request->token(),
       id_of<VersionId>(request->parent()), Bytes(record.begin(), record.end())});
  if (!answer.ok()) return status_of(answer.error());
  put_id(answer->version, reply->mutable_version());
  reply->set_sequence(answer->sequence);
  reply->set_repeated(answer->repeated);
  for (const auto& key : answer->missing) *reply->add_missing() = to_proto(key);
  return Status::OK;
}

Status TestService::Has(Context*, grpc::ServerReaderWriter<v1::HasReply, v1::HasRequest>* stream) {
  v1::HasRequest request;
  while (stream->Read(&request)) {
    v1::HasReply reply;
    reply.set_request(request.request());
    std::vector<format::ObjectKey> keys;
    for (const auto& key : request.keys()) keys.push_back(key_of(key));
    const auto present = server_->has(id_of<ImageId>(request.image()), keys);
    if (present.ok()) {
      for (const bool one : *present) reply.mutable_present()->push_back(one ? 1 : 0);
    } else {
      *reply.mutable_error() = to_detail(present.error());
    }
    {
      std::lock_guard lock(behaviour_.mutex);
      behaviour_.keys_per_request_max = std::max(behaviour_.keys_per_request_max, keys.size());
      if (behaviour_.lie == Behaviour::Lie::kShortHas) reply.mutable_present()->pop_back();
    }
    stream->Write(reply);
  }
  return Status::OK;
}

bool TestService::answer_get(const v1::GetRequest& request,
                             grpc::ServerReaderWriter<v1::GetReply, v1::GetRequest>* stream) {
  thread_local std::mt19937_64 random(seed());
  Behaviour::Lie lie{};
  {
    std::lock_guard lock(behaviour_.mutex);
    lie = behaviour_.lie;
  }
  v1::GetReply reply;
  reply.set_request(request.request());
  const auto image = id_of<ImageId>(request.image());
  if (const auto known = server_->get_image(image); !known.ok()) {
    *reply.mutable_error() = to_detail(known.error());
    return stream->Write(reply);
  }
  std::vector<std::uint32_t> order(static_cast<std::size_t>(request.keys_size()));
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::uint32_t>(i);
  std::shuffle(order.begin(), order.end(), random);
  if (lie == Behaviour::Lie::kLeaveOut) order.pop_back();
  for (const std::uint32_t index : order) {
    auto& item = *reply.add_items();
    item.set_index(lie == Behaviour::Lie::kWrongIndex ? index + 1000 : index);
    const auto object = server_->get_object(image, key_of(request.keys(static_cast<int>(index))));
    if (object.ok()) {
      item.set_object(object->data(), object->size());
    } else {
      *item.mutable_error() = to_detail(object.error());
    }
    if (lie == Behaviour::Lie::kTwice) *reply.add_items() = v1::GetReply::Item(item);
    if (reply.ByteSizeLong() > 256 * kKiB) {
      if (!stream->Write(reply)) return false;
      reply.clear_items();
    }
  }
  reply.set_done(true);
  return stream->Write(reply);
}

namespace {

// Reads a stream's requests as they come, while the handler answers what it likes. Ends the call
// when it ends.
template <typename Request, typename Reply>
class Reading {
 public:
  Reading(Behaviour& behaviour, grpc::ServerContext* context,
          grpc::ServerReaderWriter<Reply, Request>* stream,
          std::function<void(Behaviour&, Request)> arrived)
      : context_(context), thread_([this, &behaviour, stream, arrived = std::move(arrived)] {
          Request request;
          while (stream->Read(&request)) behaviour.set([&](Behaviour& b) { arrived(b, request); });
          behaviour.set([this](Behaviour&) { over_ = true; });
        }) {}
  ~Reading() {
    context_->TryCancel();
    thread_.join();
  }
  bool over() const { return over_; }

 private:
  grpc::ServerContext* context_;
  bool over_ = false;
  std::thread thread_;
};

}  // namespace

Status TestService::Get(Context* context,
                        grpc::ServerReaderWriter<v1::GetReply, v1::GetRequest>* stream) {
  std::deque<v1::GetRequest> waiting;
  behaviour_.set([](Behaviour& b) { ++b.get_streams; });
  Reading<v1::GetRequest, v1::GetReply> reading(
      behaviour_, context, stream, [&](Behaviour& b, const v1::GetRequest& request) {
        b.cancels += static_cast<std::size_t>(request.cancel_size());
        if (request.keys_size() == 0) return;
        b.keys_per_request_max =
            std::max(b.keys_per_request_max, static_cast<std::size_t>(request.keys_size()));
        waiting.push_back(request);
        b.gets_waiting_max = std::max(b.gets_waiting_max, waiting.size());
      });
  for (;;) {
    std::unique_lock lock(behaviour_.mutex);
    behaviour_.changed.wait(lock, [&] {
      if (reading.over() || behaviour_.stopping) return true;
      return !waiting.empty() && !behaviour_.hold_get &&
             waiting.size() >= behaviour_.hold_get_until;
    });
    if (reading.over() || behaviour_.stopping) return Status::OK;
    if (behaviour_.break_streams) {
      behaviour_.break_streams = false;
      return Status::OK;
    }
    behaviour_.hold_get_until = 0;
    if (behaviour_.hold_get_after_one) behaviour_.hold_get = true;
    const v1::GetRequest request = std::move(waiting.back());  // the newest first
    waiting.pop_back();
    lock.unlock();
    if (!answer_get(request, stream)) return Status::OK;
  }
}

Status TestService::Put(Context* context,
                        grpc::ServerReaderWriter<v1::PutReply, v1::PutRequest>* stream) {
  std::deque<v1::PutRequest> waiting;
  behaviour_.set([](Behaviour& b) { ++b.put_streams; });
  const auto bytes_of = [](const v1::PutRequest& request) {
    std::uint64_t bytes = 0;
    for (const auto& object : request.objects()) bytes += object.size();
    return bytes;
  };
  Reading<v1::PutRequest, v1::PutReply> reading(
      behaviour_, context, stream, [&](Behaviour& b, const v1::PutRequest& request) {
        b.put_bytes_waiting += bytes_of(request);
        b.put_bytes_waiting_max = std::max(b.put_bytes_waiting_max, b.put_bytes_waiting);
        waiting.push_back(request);
      });
  for (;;) {
    std::unique_lock lock(behaviour_.mutex);
    behaviour_.changed.wait(lock, [&] {
      return reading.over() || behaviour_.stopping || (!waiting.empty() && !behaviour_.hold_put);
    });
    if (reading.over() || behaviour_.stopping) return Status::OK;
    const v1::PutRequest request = std::move(waiting.front());
    waiting.pop_front();
    behaviour_.put_bytes_waiting -= bytes_of(request);
    lock.unlock();
    std::vector<contract::Remote::PutItem> items;
    for (int i = 0; i < request.keys_size(); ++i) {
      items.push_back({key_of(request.keys(i)), as_bytes(request.objects(i))});
    }
    v1::PutReply reply;
    reply.set_request(request.request());
    const auto stored = server_->put(id_of<ImageId>(request.image()), items);
    if (stored.ok()) {
      reply.set_stored(static_cast<std::uint32_t>(*stored));
      reply.set_present(static_cast<std::uint32_t>(items.size() - *stored));
    } else {
      *reply.mutable_error() = to_detail(stored.error());
    }
    if (!stream->Write(reply)) return Status::OK;
  }
}

// One node a message.
Status TestService::Diff(Context* context, const v1::DiffRequest* request,
                         grpc::ServerWriter<v1::DiffReply>* writer) {
  const auto part =
      server_->diff(id_of<ImageId>(request->image()), id_of<VersionId>(request->old_version()),
                    id_of<VersionId>(request->new_version()));
  if (!part.ok()) return status_of(part.error());
  for (std::size_t i = 0; i < part->keys.size(); ++i) {
    v1::DiffReply reply;
    *reply.add_keys() = to_proto(part->keys[i]);
    reply.add_nodes(part->nodes[i].data(), part->nodes[i].size());
    if (!writer->Write(reply)) return Status::CANCELLED;
  }
  std::unique_lock lock(behaviour_.mutex);
  while (behaviour_.hold_diff && !behaviour_.stopping && !context->IsCancelled()) {
    behaviour_.changed.wait_for(lock, std::chrono::milliseconds(10));
  }
  lock.unlock();
  v1::DiffReply last;
  for (const auto& key : part->removed) *last.add_removed() = to_proto(key);
  writer->Write(last);
  return Status::OK;
}

namespace {

v1::Event event_to(const contract::ServerEvent& event) {
  v1::Event message;
  message.set_kind(static_cast<v1::Event::Kind>(event.kind));
  put_id(event.image, message.mutable_image());
  put_id(event.version, message.mutable_version());
  message.set_sequence(event.sequence);
  if (event.who) holder_to(*event.who, *message.mutable_who());
  for (const std::string& branch : event.branches) message.add_branches(branch);
  return message;
}

}  // namespace

Status TestService::Watch(Context* context, const v1::WatchRequest* request,
                          grpc::ServerWriter<v1::Event>* writer) {
  std::size_t next = server_->event_count();
  std::vector<ImageId> images;
  for (const auto& image : request->images()) images.push_back(id_of<ImageId>(image));
  if (!writer->Write(v1::Event())) return Status::CANCELLED;
  // As a newer server may: a kind that this client does not know ends nothing.
  v1::Event unknown;
  unknown.set_kind(static_cast<v1::Event::Kind>(1000));
  if (!writer->Write(unknown)) return Status::CANCELLED;
  for (const auto& first : server_->first_events(images)) {
    if (!writer->Write(event_to(first))) return Status::CANCELLED;
  }
  while (!context->IsCancelled()) {
    const auto event = server_->event_after(next, images, id_of<SessionId>(request->session()));
    if (!event) {
      std::unique_lock lock(behaviour_.mutex);
      if (behaviour_.stopping) break;
      behaviour_.changed.wait_for(lock, std::chrono::milliseconds(5));
      continue;
    }
    next = event->second;
    if (!writer->Write(event_to(event->first))) break;
  }
  return Status::OK;
}

Status TestService::StoreInfo(Context*, const v1::StoreInfoRequest*, v1::StoreInfoReply* reply) {
  const auto info = server_->store_info();
  reply->set_objects(info.objects);
  reply->set_object_bytes(info.object_bytes);
  reply->set_disk_bytes(info.disk_bytes);
  reply->set_images(info.images);
  put_id(info.generation, reply->mutable_generation());
  reply->set_puts_stored(info.puts_stored);
  reply->set_puts_present(info.puts_present);
  reply->set_gets(info.gets);
  reply->set_bytes_sent(info.bytes_sent);
  reply->set_bytes_received(info.bytes_received);
  return Status::OK;
}

namespace {

// One certificate for all servers of the test: a restart is no other server.
std::shared_ptr<grpc::ServerCredentials> tls_credentials() {
  namespace tls = grpc::experimental;
  crypto::refuse_tls_1_2();
  static const crypto::Certificate certificate =
      crypto::make_certificate("test", 0, std::int64_t{1} << 33);
  tls::TlsServerCredentialsOptions options(std::make_shared<tls::StaticDataCertificateProvider>(
      std::vector<tls::IdentityKeyCertPair>{{certificate.key_pem, certificate.certificate_pem}}));
  options.watch_identity_key_cert_pairs();
  options.set_cert_request_type(GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  return tls::TlsServerCredentials(options);
}

}  // namespace

TestServer::TestServer(std::string address, std::shared_ptr<FakeServer> data)
    : address_(std::move(address)), data_(std::move(data)) {
  start();
}

void TestServer::start() {
  behaviour_.set([](Behaviour& b) { b.stopping = false; });
  service_ = std::make_unique<TestService>(data_, behaviour_);
  grpc::ServerBuilder builder;
  builder.RegisterService(service_.get());
  int port = 0;
  const bool any_port = address_.empty();
  builder.AddListeningPort(
      any_port ? "127.0.0.1:0" : address_,
      address_.starts_with("unix:") ? grpc::InsecureServerCredentials() : tls_credentials(), &port);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 8 << 20);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port == 0) std::abort();
  if (any_port) address_ = "127.0.0.1:" + std::to_string(port);
}

void TestServer::stop() {
  if (server_ == nullptr) return;
  behaviour_.set([](Behaviour& b) { b.stopping = true; });
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
  server_.reset();
  service_.reset();
}

}  // namespace dims::test
