// A server that lies: it stands between a client and a real server, hands on every call, and lets a
// test change what comes back, message by message. Threads: start and stop once; the liar is called
// from gRPC's threads, one call at a time. Ownership: the upstream channel is shared.
#pragma once

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace dims::test {

// One message from the server to the client.
struct PassingReply {
  std::string method;   // "GetImage"
  std::string request;  // the call's newest request, serialized
  std::string message;  // serialized
};
// What the client gets instead.
struct Told {
  std::vector<std::string> messages;
  std::optional<grpc::Status> end;  // ends the call here
};

class HostileProxy {
 public:
  using Liar = std::function<Told(const PassingReply&)>;

  HostileProxy(std::shared_ptr<grpc::Channel> upstream, const std::string& address);
  ~HostileProxy();

  const std::string& address() const { return address_; }
  // Answers by itself, for calls with one request: nothing goes to the server then.
  using Interceptor =
      std::function<std::optional<Told>(const std::string& method, const std::string& request)>;

  // Empty: honest.
  void set_liar(Liar liar);
  void set_interceptor(Interceptor interceptor);
  void honest();
  // Every call fails as if the line were cut.
  void set_away(bool away);

  // For the calls.
  Told tell(const PassingReply& reply);
  std::optional<Told> intercept(const std::string& method, const std::string& request);
  bool away();
  grpc::GenericStub& stub() { return stub_; }

 private:
  class Service;
  const std::string address_;
  const std::shared_ptr<grpc::Channel> upstream_;
  grpc::GenericStub stub_;
  std::mutex mutex_;
  Liar liar_;
  Interceptor interceptor_;
  bool away_ = false;
  std::unique_ptr<Service> service_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace dims::test
