// DimsService: the wire contract (proto/dims/v1/dims.proto) over the catalog. Translates; decides
// nothing.
//
// Threads: gRPC calls it from its threads; the work is done on the executors. Ownership: the
// context outlives it. Errors: an ErrorDetail in the status of every failed call.
#pragma once

#include <grpcpp/grpcpp.h>

#include "rdim-server/services/gated_call.h"

#include "dims/v1/dims.grpc.pb.h"

namespace dims::services {

class DimsService : public v1::Dims::CallbackService {
 public:
  explicit DimsService(ServiceContext& context) : context_(context) {}

  using Context = grpc::CallbackServerContext;
  using Unary = grpc::ServerUnaryReactor;

  Unary* Hello(Context* context, const v1::HelloRequest* request, v1::HelloReply* reply) override;
  Unary* CreateImage(Context* context, const v1::CreateImageRequest* request,
                     v1::Image* reply) override;
  Unary* GetImage(Context* context, const v1::GetImageRequest* request, v1::Image* reply) override;
  Unary* ListImages(Context* context, const v1::ListImagesRequest* request,
                    v1::ListImagesReply* reply) override;
  Unary* RemoveImage(Context* context, const v1::RemoveImageRequest* request,
                     v1::RemoveImageReply* reply) override;
  Unary* GetVersion(Context* context, const v1::GetVersionRequest* request,
                    v1::Version* reply) override;
  grpc::ServerWriteReactor<v1::Version>* ListVersions(
      Context* context, const v1::ListVersionsRequest* request) override;
  Unary* OpenSession(Context* context, const v1::OpenSessionRequest* request,
                     v1::OpenSessionReply* reply) override;
  Unary* CloseSession(Context* context, const v1::CloseSessionRequest* request,
                      v1::CloseSessionReply* reply) override;
  Unary* AcquireLease(Context* context, const v1::AcquireLeaseRequest* request,
                      v1::Lease* reply) override;
  Unary* RenewLease(Context* context, const v1::RenewLeaseRequest* request,
                    v1::Lease* reply) override;
  Unary* ReleaseLease(Context* context, const v1::ReleaseLeaseRequest* request,
                      v1::ReleaseLeaseReply* reply) override;
  Unary* Commit(Context* context, const v1::CommitRequest* request,
                v1::CommitReply* reply) override;
  grpc::ServerBidiReactor<v1::HasRequest, v1::HasReply>* Has(Context* context) override;
  grpc::ServerBidiReactor<v1::GetRequest, v1::GetReply>* Get(Context* context) override;
  grpc::ServerBidiReactor<v1::PutRequest, v1::PutReply>* Put(Context* context) override;
  grpc::ServerWriteReactor<v1::DiffReply>* Diff(Context* context,
                                                const v1::DiffRequest* request) override;
  grpc::ServerWriteReactor<v1::Event>* Watch(Context* context,
                                             const v1::WatchRequest* request) override;
  Unary* StoreInfo(Context* context, const v1::StoreInfoRequest* request,
                   v1::StoreInfoReply* reply) override;
  // admin_calls.cc
  Unary* StartCollection(Context* context, const v1::StartCollectionRequest* request,
                         v1::StartCollectionReply* reply) override;
  Unary* CollectionStatus(Context* context, const v1::CollectionStatusRequest* request,
                          v1::CollectionStatusReply* reply) override;
  grpc::ServerWriteReactor<v1::CheckReply>* Check(Context* context,
                                                  const v1::CheckRequest* request) override;
  Unary* LastChecks(Context* context, const v1::LastChecksRequest* request,
                    v1::LastChecksReply* reply) override;
  Unary* Retention(Context* context, const v1::RetentionRequest* request,
                   v1::RetentionReply* reply) override;

 private:
  // Behind the gate; the body is Status(const access::Caller&).
  template <typename Body>
  Unary* run(Rpc rpc, Context* context, Gate::ImageOf image_of, Body body) {
    return gated_call(context_, context_.calls, context, rpc, std::move(image_of),
                      [body = std::move(body)](const access::Caller& caller, const Ticket&) {
                        return body(caller);
                      });
  }

  ServiceContext& context_;
};

}  // namespace dims::services
