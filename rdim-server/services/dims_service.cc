#include "rdim-server/services/dims_service.h"

#include "rdim-server/services/branches.h"
#include "rdim-server/services/convert.h"
#include "rdim-server/services/gated_call.h"
#include "rdim-server/services/get_stream.h"
#include "rdim-server/services/new_image.h"
#include "rdim-server/services/object_streams.h"
#include "rdim-server/services/pull_stream.h"
#include "rdim-server/services/status.h"
#include "rdim-server/services/watch_stream.h"

namespace dims::services {
namespace {

constexpr std::uint32_t kProtocol = 1;

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

// Who is logged in from a machine speaks for no other, and who is not speaks for none that is
// enrolled: ids of sessions are no secrets.
Status check_machine(ServiceContext& context, const access::Caller& caller,
                     const MachineId& machine) {
  if (context.gate.open_to_all() || machine == caller.machine) return ok_status();
  const bool enrolled = context.gate.control().book().with(
      [&](const trust::OrgState& org) { return org.machine(machine) != nullptr; });
  if (caller.machine.is_zero() && !enrolled) return ok_status();
  return make_error(ErrorCode::kPermissionDenied, "this login is not that machine's",
                    "log in on the machine itself");
}

// The lease of a session is for its own machine.
Status check_holder(ServiceContext& context, const contract::LeaseRequest& asked) {
  if (context.gate.open_to_all()) return ok_status();
  const auto image = context.catalog.get_image(asked.image);
  if (!image.ok() || !image->holder || !(image->holder->session == asked.session) ||
      image->holder->machine == asked.machine) {
    return ok_status();
  }
  return access::denied();
}

template <typename Reply, typename Source>
grpc::ServerWriteReactor<Reply>* stream_from(ServiceContext& context, Source source) {
  return PullStream<Reply>::begin(std::make_shared<PullStream<Reply>>(context, std::move(source)));
}

}  // namespace

DimsService::Unary* DimsService::Hello(Context* context, const v1::HelloRequest* request,
                                       v1::HelloReply* reply) {
  return run(Rpc::kHello, context, {}, [this, request, reply](const access::Caller&) -> Status {
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

DimsService::Unary* DimsService::OpenSession(Context* context,
                                             const v1::OpenSessionRequest* request,
                                             v1::OpenSessionReply* reply) {
  return run(Rpc::kOpenSession, context, image_in(request->image()),
             [this, request, reply](const access::Caller& caller) -> Status {
               DIMS_ASSIGN(const contract::SessionRequest asked, from_proto(*request));
               DIMS_TRY(check_machine(context_, caller, asked.machine));
               DIMS_ASSIGN(const bool part, may_name_version(context_, asked.image, asked.base));
               if (!part) return unknown_version(ErrorCode::kOtherHistory, asked.base);
               DIMS_ASSIGN(contract::SessionAnswer answer, context_.catalog.open_session(asked));
               answer.image.branches = branches_for(context_, caller, answer.image.name);
               to_proto(answer, reply);
               return ok_status();
             });
}

DimsService::Unary* DimsService::CloseSession(Context* context,
                                              const v1::CloseSessionRequest* request,
                                              v1::CloseSessionReply* /*reply*/) {
  return run(Rpc::kCloseSession, context, image_in(request->image()),
             [this, request](const access::Caller& caller) -> Status {
               ImageId image;
               SessionId session;
               DIMS_TRY(take_id(request->image(), "image id", image));
               DIMS_TRY(take_id(request->session(), "session id", session));
               DIMS_ASSIGN(const MachineId machine,
                           context_.catalog.machine_of_session(image, session));
               if (!machine.is_zero()) DIMS_TRY(check_machine(context_, caller, machine));
               return context_.catalog.close_session(image, session);
             });
}

DimsService::Unary* DimsService::AcquireLease(Context* context,
                                              const v1::AcquireLeaseRequest* request,
                                              v1::Lease* reply) {
  return run(Rpc::kAcquireLease, context, image_in(request->image()),
             [this, request, reply](const access::Caller& caller) -> Status {
               DIMS_ASSIGN(const contract::LeaseRequest asked, from_proto(*request));
               DIMS_TRY(check_machine(context_, caller, asked.machine));
               DIMS_TRY(check_holder(context_, asked));
               DIMS_ASSIGN(const contract::LeaseGrant lease, context_.catalog.acquire_lease(asked));
               if (asked.take_over)
                 context_.gate.control().audit().add(caller, "take-over", asked.image);
               to_proto(lease, reply);
               return ok_status();
             });
}

DimsService::Unary* DimsService::RenewLease(Context* context, const v1::RenewLeaseRequest* request,
                                            v1::Lease* reply) {
  return run(Rpc::kRenewLease, context, image_in(request->image()),
             [this, request, reply](const access::Caller&) -> Status {
               ImageId image;
               DIMS_TRY(take_id(request->image(), "image id", image));
               DIMS_ASSIGN(contract::LeaseGrant held, lease_of(request->lease(), request->token()));
               held.unsent_bytes = request->unsent_bytes();
               DIMS_ASSIGN(const contract::LeaseGrant lease,
                           context_.catalog.renew_lease(image, held));
               to_proto(lease, reply);
               return ok_status();
             });
}

DimsService::Unary* DimsService::ReleaseLease(Context* context,
                                              const v1::ReleaseLeaseRequest* request,
                                              v1::ReleaseLeaseReply* /*reply*/) {
  return run(Rpc::kReleaseLease, context, image_in(request->image()),
             [this, request](const access::Caller&) -> Status {
               ImageId image;
               DIMS_TRY(take_id(request->image(), "image id", image));
               DIMS_ASSIGN(const contract::LeaseGrant held,
                           lease_of(request->lease(), request->token()));
               return context_.catalog.release_lease(image, held);
             });
}

DimsService::Unary* DimsService::Commit(Context* context, const v1::CommitRequest* request,
                                        v1::CommitReply* reply) {
  const auto body = [this, request, reply](const access::Caller& caller, const Ticket&) -> Status {
    DIMS_ASSIGN(const contract::CommitOrder order, from_proto(*request));
    const std::shared_lock no_new_keys(context_.epochs);
    DIMS_TRY(check_signer(context_, caller, order));
    DIMS_ASSIGN(const contract::CommitAnswer answer, context_.catalog.commit(order));
    if (answer.missing.empty() && !answer.repeated) {
      context_.gate.control().audit().add(caller, "commit", order.image,
                                          "version " + answer.version.short_hex());
    }
    to_proto(answer, reply);
    return ok_status();
  };
  return gated_call(context_, context_.commits, context, Rpc::kCommit, image_in(request->image()),
                    body);
}

grpc::ServerBidiReactor<v1::HasRequest, v1::HasReply>* DimsService::Has(Context* context) {
  return HasStream::begin(std::make_shared<HasStream>(context_, context_.gate.ticket(*context)));
}

grpc::ServerBidiReactor<v1::GetRequest, v1::GetReply>* DimsService::Get(Context* context) {
  return GetStream::begin(std::make_shared<GetStream>(context_, context_.gate.ticket(*context)));
}

grpc::ServerBidiReactor<v1::PutRequest, v1::PutReply>* DimsService::Put(Context* context) {
  return PutStream::begin(std::make_shared<PutStream>(context_, context_.gate.ticket(*context)));
}

grpc::ServerWriteReactor<v1::DiffReply>* DimsService::Diff(Context* context,
                                                           const v1::DiffRequest* request) {
  struct State {
    Ticket ticket;
    v1::DiffRequest request;
    ImageId image;
    std::unique_ptr<catalog::TreeDiff> diff;
    std::deque<v1::DiffReply> ready;
  };
  auto state = std::make_shared<State>();
  state->ticket = context_.gate.ticket(*context);
  state->request = *request;
  return stream_from<v1::DiffReply>(
      context_, [this, state]() -> Result<std::optional<v1::DiffReply>> {
        const std::uint64_t part_bytes = context_.limits.bulk_reply_bytes;
        if (!state->diff) DIMS_TRY(take_id(state->request.image(), "image id", state->image));
        if (state->diff) {
          DIMS_TRY(context_.gate.admit_again(Rpc::kDiff, state->ticket, state->image));
        } else {
          DIMS_TRY(context_.gate.admit(Rpc::kDiff, state->ticket, state->image));
          VersionId old_version, new_version;
          DIMS_TRY(take_id(state->request.old_version(), "old version id", old_version));
          DIMS_TRY(take_id(state->request.new_version(), "new version id", new_version));
          const ImageId& image = state->image;
          DIMS_ASSIGN(const bool part, may_name_version(context_, image, new_version));
          if (!part) return unknown_version(ErrorCode::kOtherHistory, new_version);
          DIMS_ASSIGN(const bool old_part, may_name_version(context_, image, old_version));
          if (!old_part) old_version = {};  // as one that nobody knows
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

grpc::ServerWriteReactor<v1::Event>* DimsService::Watch(Context* context,
                                                        const v1::WatchRequest* request) {
  return WatchStream::begin(std::make_shared<WatchStream>(context_, context_.gate.ticket(*context)),
                            *request);
}

DimsService::Unary* DimsService::StoreInfo(Context* context,
                                           const v1::StoreInfoRequest* /*request*/,
                                           v1::StoreInfoReply* reply) {
  return run(Rpc::kStoreInfo, context, {}, [this, reply](const access::Caller&) -> Status {
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
