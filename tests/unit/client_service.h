// A gRPC service for tests of the client: the wire in front of a FakeServer, with replies out of
// order and in pieces, and misbehaviour on demand. Threads: thread-safe; handlers run on gRPC's
// threads. Ownership: TestServer owns service and listener; the FakeServer (the data) survives a
// restart.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <thread>

#include "tests/support/fake_server.h"

#include "dims/v1/dims.grpc.pb.h"

namespace dims::test {

// How the service treats its callers.
struct Behaviour {
  std::mutex mutex;
  std::condition_variable changed;
  bool hold_get = false, hold_put = false, hold_unary = false, hold_diff = false;
  std::size_t hold_get_until = 0;   // answers only when so many requests wait in one stream
  bool hold_get_after_one = false;  // answers one request and then none
  bool break_streams = false;       // the next request ends its stream
  enum class Lie { kNone, kWrongIndex, kTwice, kLeaveOut, kShortHas } lie = Lie::kNone;
  bool bare_errors = false;  // without ErrorDetail
  v1::Limits limits;

  // Seen.
  std::size_t get_streams = 0, put_streams = 0, hellos = 0, cancels = 0;
  std::size_t gets_waiting_max = 0;
  std::uint64_t put_bytes_waiting = 0, put_bytes_waiting_max = 0;
  std::size_t keys_per_request_max = 0;
  bool stopping = false;

  template <typename Change>
  void set(const Change& change) {
    std::lock_guard lock(mutex);
    change(*this);
    changed.notify_all();
  }
};

class TestService : public v1::Dims::Service {
 public:
  TestService(std::shared_ptr<FakeServer> server, Behaviour& behaviour)
      : server_(std::move(server)), behaviour_(behaviour) {}

  using Context = grpc::ServerContext;
  grpc::Status Hello(Context*, const v1::HelloRequest*, v1::HelloReply*) override;
  grpc::Status CreateImage(Context*, const v1::CreateImageRequest*, v1::Image*) override;
  grpc::Status GetImage(Context*, const v1::GetImageRequest*, v1::Image*) override;
  grpc::Status ListImages(Context*, const v1::ListImagesRequest*, v1::ListImagesReply*) override;
  grpc::Status RemoveImage(Context*, const v1::RemoveImageRequest*, v1::RemoveImageReply*) override;
  grpc::Status GetVersion(Context*, const v1::GetVersionRequest*, v1::Version*) override;
  grpc::Status ListVersions(Context*, const v1::ListVersionsRequest*,
                            grpc::ServerWriter<v1::Version>*) override;
  grpc::Status OpenSession(Context*, const v1::OpenSessionRequest*, v1::OpenSessionReply*) override;
  grpc::Status CloseSession(Context*, const v1::CloseSessionRequest*,
                            v1::CloseSessionReply*) override;
  grpc::Status AcquireLease(Context*, const v1::AcquireLeaseRequest*, v1::Lease*) override;
  grpc::Status RenewLease(Context*, const v1::RenewLeaseRequest*, v1::Lease*) override;
  grpc::Status ReleaseLease(Context*, const v1::ReleaseLeaseRequest*,
                            v1::ReleaseLeaseReply*) override;
  grpc::Status Commit(Context*, const v1::CommitRequest*, v1::CommitReply*) override;
  grpc::Status Has(Context*, grpc::ServerReaderWriter<v1::HasReply, v1::HasRequest>*) override;
  grpc::Status Get(Context*, grpc::ServerReaderWriter<v1::GetReply, v1::GetRequest>*) override;
  grpc::Status Put(Context*, grpc::ServerReaderWriter<v1::PutReply, v1::PutRequest>*) override;
  grpc::Status Diff(Context*, const v1::DiffRequest*, grpc::ServerWriter<v1::DiffReply>*) override;
  grpc::Status Watch(Context*, const v1::WatchRequest*, grpc::ServerWriter<v1::Event>*) override;
  grpc::Status StoreInfo(Context*, const v1::StoreInfoRequest*, v1::StoreInfoReply*) override;

 private:
  grpc::Status status_of(const Error& error);
  bool answer_get(const v1::GetRequest& request,
                  grpc::ServerReaderWriter<v1::GetReply, v1::GetRequest>* stream);

  std::shared_ptr<FakeServer> server_;
  Behaviour& behaviour_;
};

// A running service. stop() ends it as a killed process would (calls are cut); start() brings it
// back.
class TestServer {
 public:
  // address empty: a free TCP port of the loopback.
  explicit TestServer(std::string address = {},
                      std::shared_ptr<FakeServer> data = std::make_shared<FakeServer>());
  ~TestServer() { stop(); }
  void start();
  void stop();
  const std::string& address() const { return address_; }
  FakeServer& data() { return *data_; }
  std::shared_ptr<FakeServer> shared_data() { return data_; }
  Behaviour& behaviour() { return behaviour_; }

 private:
  std::string address_;
  std::shared_ptr<FakeServer> data_;
  Behaviour behaviour_;
  std::unique_ptr<TestService> service_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace dims::test
