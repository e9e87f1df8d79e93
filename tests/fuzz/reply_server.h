// A server that answers every call with what it is told, over a UNIX socket: messages, then a
// status. Threads: tell() from one thread, between calls; handlers run on gRPC's. It lives as long
// as the program.
#pragma once

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>

#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "dims/v1/dims.pb.h"

namespace dims::fuzz {

struct Reply {
  std::vector<std::string> messages;
  grpc::Status end;
};

class ReplyServer {
 public:
  explicit ReplyServer(const std::string& address) : service_(*this) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address, grpc::InsecureServerCredentials());
    builder.RegisterCallbackGenericService(&service_);
    server_ = builder.BuildAndStart();
    if (!server_) std::abort();
  }
  ~ReplyServer() {
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
  }

  // For every call but Hello, which gets its own.
  void tell(Reply hello, Reply others) {
    const std::lock_guard lock(mutex_);
    hello_ = std::move(hello);
    others_ = std::move(others);
  }
  Reply told(const std::string& method) {
    const std::lock_guard lock(mutex_);
    return method.ends_with("/Hello") ? hello_ : others_;
  }

 private:
  // Replies to numbered requests count from 1: the client numbers on from call to call.
  template <typename Request, typename Message>
  static void number(const std::string& request, std::vector<std::string>& messages) {
    Request asked;
    asked.ParseFromString(request);
    for (std::string& text : messages) {
      Message message;
      if (!message.ParseFromString(text)) continue;
      message.set_request(asked.request() + message.request() - 1);
      message.SerializeToString(&text);
    }
  }

  class Call : public grpc::ServerGenericBidiReactor {
   public:
    Call(ReplyServer& server, std::string method) : server_(server), method_(std::move(method)) {
      StartRead(&request_);
    }
    void OnReadDone(bool ok) override {
      if (!ok) return Finish(grpc::Status::OK);
      reply_ = server_.told(method_);
      std::vector<grpc::Slice> slices;
      std::string request;
      if (request_.Dump(&slices).ok()) {
        for (const grpc::Slice& slice : slices)
          request.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
      }
      if (method_.ends_with("Dims/Get"))
        number<v1::GetRequest, v1::GetReply>(request, reply_.messages);
      if (method_.ends_with("Dims/Has"))
        number<v1::HasRequest, v1::HasReply>(request, reply_.messages);
      if (method_.ends_with("Dims/Put"))
        number<v1::PutRequest, v1::PutReply>(request, reply_.messages);
      next();
    }
    void OnWriteDone(bool ok) override {
      if (!ok) at_ = reply_.messages.size();
      next();
    }
    void OnDone() override { delete this; }

   private:
    void next() {
      if (at_ == reply_.messages.size()) return Finish(reply_.end);
      const grpc::Slice slice(reply_.messages[at_++]);
      out_ = grpc::ByteBuffer(&slice, 1);
      StartWrite(&out_);
    }
    ReplyServer& server_;
    const std::string method_;
    grpc::ByteBuffer request_, out_;
    Reply reply_;
    std::size_t at_ = 0;
  };
  class Service : public grpc::CallbackGenericService {
   public:
    explicit Service(ReplyServer& server) : server_(server) {}
    grpc::ServerGenericBidiReactor* CreateReactor(
        grpc::GenericCallbackServerContext* context) override {
      return new Call(server_, context->method());
    }

   private:
    ReplyServer& server_;
  };

  std::mutex mutex_;
  Reply hello_, others_;
  Service service_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace dims::fuzz
