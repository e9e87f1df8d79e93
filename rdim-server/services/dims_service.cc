#include "rdim-server/services/dims_service.h"

#include <algorithm>

#include "rdim-server/services/convert.h"
#include "rdim-server/services/get_stream.h"
#include "rdim-server/services/object_streams.h"
#include "rdim-server/services/pull_stream.h"
#include "rdim-server/services/status.h"
#include "rdim-server/services/watch_stream.h"

namespace dims::services {
namespace {

constexpr std::uint32_t kProtocol = 1;
constexpr std::size_t kImagesPerReply = 256;

// Cuts a part of the modified list into messages of bounded size.
std::deque<v1::DiffReply> cut_part(contract::DiffPart part, std::uint64_t bytes_max) {
  std::deque<v1::DiffReply> replies(1);
  std::uint64_t bytes = 0;
  const auto room_for = [&](std::uint64_t more) -> v1::DiffReply& {
    if (bytes != 0 && bytes + more > bytes_max) {
      replies.emplace_back();
      bytes = 0;
    }
    bytes += more;
    return replies.back();
  };
  for (std::size_t i = 0; i < part.keys.size(); ++i) {
    v1::DiffReply& reply = room_for(part.nodes[i].size() + 64);
    to_proto(part.keys[i], reply.add_keys());
    reply.add_nodes(part.nodes[i].data(), part.nodes[i].size());
  }
  for (const format::ObjectKey& key : part.removed) to_proto(key, room_for(64).add_removed());
  return replies;
}

template <typename Reply, typename Source>
grpc::ServerWriteReactor<Reply>* stream_from(ServiceContext& context, Source source) {
  return PullStream<Reply>::begin(std::make_shared<PullStream<Reply>>(context, std::move(source)));
}

}  // namespace

template <typename Body>
grpc::ServerUnaryReactor* DimsService::run_on(Executor& executor, Context* context, Body body) {
  Unary* const reactor = context->DefaultReactor();
  executor.run(contract::Priority::kDemand, [reactor, body = std::move(body)] {
    const Status status = body();
    reactor->Finish(to_grpc(status));
  });
  return reactor;
}

DimsService::Unary* DimsService::Hello(Context* context, const v1::HelloRequest* request,
                                       v1::HelloReply* reply) {
  return run(context, [this, request, reply]() -> Status {
    if (request->protocol() != kProtocol) {
      return make_error(ErrorCode::kUnsupported,
                        "protocol " + std::to_string(request->protocol()) +
                            " is not spoken here; this server speaks " + std::to_string(kProtocol),
                        "client and server are of different versions: update the older one");
    }
    MachineId machine;
    SessionId session;
    DIMS_TRY(take_id(request->machine(), "machine id", machine));
    DIMS_TRY(take_id(request->session(), "session id", session));
    reply->set_protocol(kProtocol);
    v1::Limits* limits = reply->mutable_limits();
    limits->set_max_message_bytes(context_.limits.message_bytes_max);
    limits->set_max_objects_per_request(context_.limits.objects_per_request_max);
    limits->set_max_object_bytes(static_cast<std::uint32_t>(format::kMaxObjectBytes));
    limits->set_max_requests_in_flight(context_.limits.requests_in_flight_max);
    reply->set_generation(to_field(context_.catalog.generation()));
    reply->set_server_version(context_.server_version);
    return ok_status();
  });
}

DimsService::Unary* DimsService::CreateImage(Context* context,
                                             const v1::CreateImageRequest* request,
                                             v1::Image* reply) {
  return run(context, [this, request, reply]() -> Status {
    DIMS_ASSIGN(const contract::ImageInfo asked, from_proto(*request));
    DIMS_ASSIGN(const contract::ImageInfo image, context_.catalog.create_image(asked));
    to_proto(image, reply);
    return ok_status();
  });
}

DimsService::Unary* DimsService::GetImage(Context* context, const v1::GetImageRequest* request,
                                          v1::Image* reply) {
  return run(context, [this, request, reply]() -> Status {
    if (request->id().empty()) {
      DIMS_ASSIGN(const contract::ImageInfo image, context_.catalog.find_image(request->name()));
      to_proto(image, reply);
      return ok_status();
    }
    ImageId id;
    DIMS_TRY(take_id(request->id(), "image id", id));
    DIMS_ASSIGN(const contract::ImageInfo image, context_.catalog.get_image(id));
    to_proto(image, reply);
    return ok_status();
  });
}

DimsService::Unary* DimsService::ListImages(Context* context, const v1::ListImagesRequest* request,
                                            v1::ListImagesReply* reply) {
  return run(context, [this, request, reply]() -> Status {
    const std::size_t limit = request->limit() == 0
                                  ? kImagesPerReply
                                  : std::min<std::size_t>(request->limit(), kImagesPerReply);
    auto images = context_.catalog.list_images(request->after_name(), limit + 1);
    reply->set_more(images.size() > limit);
    if (images.size() > limit) images.pop_back();
    for (const contract::ImageInfo& image : images) to_proto(image, reply->add_images());
    return ok_status();
  });
}

DimsService::Unary* DimsService::RemoveImage(Context* context,
                                             const v1::RemoveImageRequest* request,
                                             v1::RemoveImageReply* /*reply*/) {
  return run(context, [this, request]() -> Status {
    ImageId id;
    DIMS_TRY(take_id(request->id(), "image id", id));
    return context_.catalog.remove_image(id);
  });
}

DimsService::Unary* DimsService::GetVersion(Context* context, const v1::GetVersionRequest* request,
                                            v1::Version* reply) {
  return run(context, [this, request, reply]() -> Status {
    ImageId image;
    VersionId id;
    DIMS_TRY(take_id(request->image(), "image id", image));
    DIMS_TRY(take_id(request->version(), "version id", id));
    DIMS_ASSIGN(const contract::VersionInfo version,
                context_.catalog.get_version(image, id, request->sequence()));
    to_proto(version, reply);
    return ok_status();
  });
}

grpc::ServerWriteReactor<v1::Version>* DimsService::ListVersions(
    Context* /*context*/, const v1::ListVersionsRequest* request) {
  struct State {
    std::string image_field;
    std::uint64_t left = 0;
    bool started = false;
    ImageId image;
    VersionId next;
  };
  auto state = std::make_shared<State>();
  state->image_field = request->image();
  state->left = request->limit() == 0 ? ~std::uint64_t{0} : request->limit();
  return stream_from<v1::Version>(context_, [this, state]() -> Result<std::optional<v1::Version>> {
    if (!state->started) {
      state->started = true;
      DIMS_TRY(take_id(state->image_field, "image id", state->image));
      DIMS_ASSIGN(const auto image, context_.catalog.get_image(state->image));
      state->next = image.head;
    }
    if (state->next.is_zero() || state->left == 0) return std::optional<v1::Version>{};
    DIMS_ASSIGN(const contract::VersionInfo version,
                context_.catalog.get_version(state->image, state->next, 0));
    state->next = version.record.parent;
    --state->left;
    v1::Version message;
    to_proto(version, &message);
    return std::optional<v1::Version>(std::move(message));
  });
}

DimsService::Unary* DimsService::OpenSession(Context* context,
                                             const v1::OpenSessionRequest* request,
                                             v1::OpenSessionReply* reply) {
  return run(context, [this, request, reply]() -> Status {
    DIMS_ASSIGN(const contract::SessionRequest asked, from_proto(*request));
    DIMS_ASSIGN(const contract::SessionAnswer answer, context_.catalog.open_session(asked));
    to_proto(answer, reply);
    return ok_status();
  });
}

DimsService::Unary* DimsService::CloseSession(Context* context,
                                              const v1::CloseSessionRequest* request,
                                              v1::CloseSessionReply* /*reply*/) {
  return run(context, [this, request]() -> Status {
    ImageId image;
    SessionId session;
    DIMS_TRY(take_id(request->image(), "image id", image));
    DIMS_TRY(take_id(request->session(), "session id", session));
    return context_.catalog.close_session(image, session);
  });
}

DimsService::Unary* DimsService::AcquireLease(Context* context,
                                              const v1::AcquireLeaseRequest* request,
                                              v1::Lease* reply) {
  return run(context, [this, request, reply]() -> Status {
    DIMS_ASSIGN(const contract::LeaseRequest asked, from_proto(*request));
    DIMS_ASSIGN(const contract::LeaseGrant lease, context_.catalog.acquire_lease(asked));
    to_proto(lease, reply);
    return ok_status();
  });
}

DimsService::Unary* DimsService::RenewLease(Context* context, const v1::RenewLeaseRequest* request,
                                            v1::Lease* reply) {
  return run(context, [this, request, reply]() -> Status {
    ImageId image;
    DIMS_TRY(take_id(request->image(), "image id", image));
    DIMS_ASSIGN(contract::LeaseGrant held, lease_of(request->lease(), request->token()));
    held.unsent_bytes = request->unsent_bytes();
    DIMS_ASSIGN(const contract::LeaseGrant lease, context_.catalog.renew_lease(image, held));
    to_proto(lease, reply);
    return ok_status();
  });
}

DimsService::Unary* DimsService::ReleaseLease(Context* context,
                                              const v1::ReleaseLeaseRequest* request,
                                              v1::ReleaseLeaseReply* /*reply*/) {
  return run(context, [this, request]() -> Status {
    ImageId image;
    DIMS_TRY(take_id(request->image(), "image id", image));
    DIMS_ASSIGN(const contract::LeaseGrant held, lease_of(request->lease(), request->token()));
    return context_.catalog.release_lease(image, held);
  });
}

DimsService::Unary* DimsService::Commit(Context* context, const v1::CommitRequest* request,
                                        v1::CommitReply* reply) {
  return run_on(context_.commits, context, [this, request, reply]() -> Status {
    DIMS_ASSIGN(const contract::CommitOrder order, from_proto(*request));
    DIMS_ASSIGN(const contract::CommitAnswer answer, context_.catalog.commit(order));
    to_proto(answer, reply);
    return ok_status();
  });
}

grpc::ServerBidiReactor<v1::HasRequest, v1::HasReply>* DimsService::Has(Context* /*context*/) {
  return HasStream::begin(std::make_shared<HasStream>(context_));
}

grpc::ServerBidiReactor<v1::GetRequest, v1::GetReply>* DimsService::Get(Context* /*context*/) {
  return GetStream::begin(std::make_shared<GetStream>(context_));
}

grpc::ServerBidiReactor<v1::PutRequest, v1::PutReply>* DimsService::Put(Context* /*context*/) {
  return PutStream::begin(std::make_shared<PutStream>(context_));
}

grpc::ServerWriteReactor<v1::DiffReply>* DimsService::Diff(Context* /*context*/,
                                                           const v1::DiffRequest* request) {
  struct State {
    v1::DiffRequest request;
    std::unique_ptr<catalog::TreeDiff> diff;
    std::deque<v1::DiffReply> ready;
  };
  auto state = std::make_shared<State>();
  state->request = *request;
  return stream_from<v1::DiffReply>(
      context_, [this, state]() -> Result<std::optional<v1::DiffReply>> {
        const std::uint64_t part_bytes = context_.limits.bulk_reply_bytes;
        if (!state->diff) {
          ImageId image;
          VersionId old_version, new_version;
          DIMS_TRY(take_id(state->request.image(), "image id", image));
          DIMS_TRY(take_id(state->request.old_version(), "old version id", old_version));
          DIMS_TRY(take_id(state->request.new_version(), "new version id", new_version));
          DIMS_ASSIGN(state->diff, context_.catalog.diff(image, old_version, new_version));
        }
        if (state->ready.empty()) {
          DIMS_ASSIGN(auto part, state->diff->next(part_bytes));
          if (!part) return std::optional<v1::DiffReply>{};
          for (const Bytes& node : part->nodes) context_.counters.bytes_sent += node.size();
          state->ready = cut_part(std::move(*part), part_bytes);
        }
        v1::DiffReply reply = std::move(state->ready.front());
        state->ready.pop_front();
        return std::optional<v1::DiffReply>(std::move(reply));
      });
}

grpc::ServerWriteReactor<v1::Event>* DimsService::Watch(Context* /*context*/,
                                                        const v1::WatchRequest* request) {
  return WatchStream::begin(std::make_shared<WatchStream>(context_), *request);
}

DimsService::Unary* DimsService::StoreInfo(Context* context,
                                           const v1::StoreInfoRequest* /*request*/,
                                           v1::StoreInfoReply* reply) {
  return run(context, [this, reply]() -> Status {
    DIMS_ASSIGN(const contract::StoreInfo info, context_.objects.info());
    reply->set_objects(info.objects);
    reply->set_object_bytes(info.object_bytes);
    reply->set_disk_bytes(info.disk_bytes);
    reply->set_images(context_.catalog.image_count());
    reply->set_generation(to_field(context_.catalog.generation()));
    reply->set_puts_stored(context_.counters.puts_stored);
    reply->set_puts_present(context_.counters.puts_present);
    reply->set_gets(context_.counters.gets);
    reply->set_bytes_sent(context_.counters.bytes_sent);
    reply->set_bytes_received(context_.counters.bytes_received);
    return ok_status();
  });
}

}  // namespace dims::services
