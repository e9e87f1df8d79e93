// A unary call behind the gate: admitted, run on an executor, ended with its Status.
// Threads: begun on gRPC's, the body on the executor's. Ownership: gRPC keeps request and reply
// until Finish.
#pragma once

#include "rdim-server/services/context.h"
#include "rdim-server/services/convert.h"
#include "rdim-server/services/status.h"

namespace dims::services {

// The image that a field of the request names.
inline Gate::ImageOf image_in(const std::string& field) {
  return [&field]() -> Result<ImageId> {
    ImageId image;
    DIMS_TRY(take_id(field, "image id", image));
    return image;
  };
}

// Body: Status(const access::Caller&, const Ticket&).
template <typename Body>
grpc::ServerUnaryReactor* gated_call(ServiceContext& context, Executor& executor,
                                     grpc::CallbackServerContext* call, Rpc rpc,
                                     Gate::ImageOf image_of, Body body) {
  grpc::ServerUnaryReactor* const reactor = call->DefaultReactor();
  executor.run(contract::Priority::kDemand,
               [&context, reactor, rpc, ticket = context.gate.ticket(*call),
                image_of = std::move(image_of), body = std::move(body)] {
                 const auto caller = context.gate.admit(rpc, ticket, image_of);
                 const Status status = caller.ok() ? body(*caller, ticket) : Status(caller.error());
                 reactor->Finish(to_grpc(status));
               });
  return reactor;
}

}  // namespace dims::services
