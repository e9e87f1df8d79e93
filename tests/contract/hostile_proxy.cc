#include "tests/contract/hostile_proxy.h"

#include <grpcpp/generic/async_generic_service.h>

#include <deque>

namespace dims::test {
namespace {

using Buffer = grpc::ByteBuffer;

std::string text_of(const Buffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string out;
  if (!buffer.Dump(&slices).ok()) return out;
  for (const grpc::Slice& slice : slices)
    out.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return out;
}

Buffer buffer_of(const std::string& text) {
  const grpc::Slice slice(text);
  return Buffer(&slice, 1);
}

// One call on its way through. Each side drops its share when gRPC is done with it.
class Relay : public std::enable_shared_from_this<Relay> {
 public:
  Relay(HostileProxy& proxy, const std::string& method) : proxy_(proxy), method_(method) {}

  grpc::ServerGenericBidiReactor* begin(grpc::GenericCallbackServerContext* context) {
    down_.keep = shared_from_this();
    if (proxy_.away()) {
      down_.Finish({grpc::StatusCode::UNAVAILABLE, "the line is cut"});
      return &down_;
    }
    for (const auto& [key, value] : context->client_metadata()) {
      if (key.starts_with("dims-"))
        up_context_.AddMetadata(std::string(key.data(), key.size()),
                                std::string(value.data(), value.size()));
    }
    up_.keep = shared_from_this();
    proxy_.stub().PrepareBidiStreamingCall(&up_context_, method_, {}, &up_);
    up_.AddHold();
    up_.StartCall();
    up_.StartRead(&from_server_);
    down_.StartRead(&from_client_);
    return &down_;
  }

 private:
  struct Down : grpc::ServerGenericBidiReactor {
    explicit Down(Relay& r) : relay(r) {}
    void OnReadDone(bool ok) override { relay.client_said(ok); }
    void OnWriteDone(bool ok) override { relay.client_has(ok); }
    void OnCancel() override { relay.up_context_.TryCancel(); }
    void OnDone() override { relay.let_go(keep); }
    Relay& relay;
    std::shared_ptr<Relay> keep;
  };
  struct Up : grpc::ClientBidiReactor<Buffer, Buffer> {
    explicit Up(Relay& r) : relay(r) {}
    void OnReadDone(bool ok) override { relay.server_said(ok); }
    void OnWriteDone(bool /*ok*/) override { relay.server_has(); }
    void OnDone(const grpc::Status& status) override {
      relay.server_ended(status);
      relay.let_go(keep);
    }
    Relay& relay;
    std::shared_ptr<Relay> keep;
  };

  // gRPC orders the end of a call behind all its callbacks; the lock says so to a race detector.
  void let_go(std::shared_ptr<Relay>& share) {
    std::shared_ptr<Relay> last;
    const std::lock_guard lock(mutex_);
    last = std::move(share);
  }
  void client_said(bool ok) {
    const std::lock_guard lock(mutex_);
    if (ok) {
      last_request_ = text_of(from_client_);
      const auto told = proxy_.intercept(method_.substr(method_.rfind('/') + 1), last_request_);
      if (told) {
        for (const std::string& message : told->messages) replies_.push_back(buffer_of(message));
        final_ = told->end.value_or(grpc::Status::OK);
        up_context_.TryCancel();
        to_client();
        return;
      }
      requests_.push_back(from_client_);
      from_client_.Clear();
      if (!finished_) down_.StartRead(&from_client_);
    } else {
      no_more_requests_ = true;
    }
    to_server();
  }
  void server_has() {
    const std::lock_guard lock(mutex_);
    writing_up_ = false;
    to_server();
  }
  void to_server() {
    if (up_closed_ || writing_up_) return;
    if (!requests_.empty()) {
      writing_up_ = true;
      to_server_ = std::move(requests_.front());
      requests_.pop_front();
      up_.StartWrite(&to_server_);
    } else if (no_more_requests_ && !said_done_) {
      said_done_ = true;
      up_.StartWritesDone();
    }
  }
  void server_said(bool ok) {
    if (!ok) {
      {
        const std::lock_guard lock(mutex_);
        up_closed_ = true;
      }
      up_.RemoveHold();
      return;
    }
    PassingReply reply{method_.substr(method_.rfind('/') + 1), {}, text_of(from_server_)};
    {
      const std::lock_guard lock(mutex_);
      reply.request = last_request_;
    }
    const Told told = proxy_.tell(reply);
    const std::lock_guard lock(mutex_);
    for (const std::string& message : told.messages) replies_.push_back(buffer_of(message));
    if (told.end && !final_) {
      final_ = told.end;
      up_context_.TryCancel();
    }
    from_server_.Clear();
    up_.StartRead(&from_server_);
    to_client();
  }
  void server_ended(const grpc::Status& status) {
    const std::lock_guard lock(mutex_);
    if (!final_) final_ = status;
    to_client();
  }
  void client_has(bool ok) {
    const std::lock_guard lock(mutex_);
    writing_down_ = false;
    if (!ok) replies_.clear();
    to_client();
  }
  void to_client() {
    if (writing_down_ || finished_) return;
    if (!replies_.empty()) {
      writing_down_ = true;
      to_client_ = std::move(replies_.front());
      replies_.pop_front();
      down_.StartWrite(&to_client_);
    } else if (final_) {
      finished_ = true;
      down_.Finish(*final_);
    }
  }

  HostileProxy& proxy_;
  const std::string method_;
  grpc::ClientContext up_context_;
  Down down_{*this};
  Up up_{*this};
  std::mutex mutex_;
  Buffer from_client_, to_server_, from_server_, to_client_;
  std::deque<Buffer> requests_, replies_;
  std::string last_request_;
  std::optional<grpc::Status> final_;
  bool no_more_requests_ = false, said_done_ = false, writing_up_ = false, up_closed_ = false;
  bool writing_down_ = false, finished_ = false;
};

}  // namespace

class HostileProxy::Service : public grpc::CallbackGenericService {
 public:
  explicit Service(HostileProxy& proxy) : proxy_(proxy) {}
  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override {
    return std::make_shared<Relay>(proxy_, context->method())->begin(context);
  }

 private:
  HostileProxy& proxy_;
};

HostileProxy::HostileProxy(std::shared_ptr<grpc::Channel> upstream, const std::string& address)
    : address_(address),
      upstream_(std::move(upstream)),
      stub_(upstream_),
      service_(std::make_unique<Service>(*this)) {
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address_, grpc::InsecureServerCredentials());
  // As patient with pings as the real one.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
  builder.RegisterCallbackGenericService(service_.get());
  server_ = builder.BuildAndStart();
}

HostileProxy::~HostileProxy() {
  if (server_) server_->Shutdown(std::chrono::system_clock::now());
  if (server_) server_->Wait();
}

void HostileProxy::set_liar(Liar liar) {
  const std::lock_guard lock(mutex_);
  liar_ = std::move(liar);
}

void HostileProxy::set_interceptor(Interceptor interceptor) {
  const std::lock_guard lock(mutex_);
  interceptor_ = std::move(interceptor);
}

void HostileProxy::honest() {
  const std::lock_guard lock(mutex_);
  liar_ = {};
  interceptor_ = {};
}

std::optional<Told> HostileProxy::intercept(const std::string& method, const std::string& request) {
  const std::lock_guard lock(mutex_);
  return interceptor_ ? interceptor_(method, request) : std::nullopt;
}

void HostileProxy::set_away(bool away) {
  const std::lock_guard lock(mutex_);
  away_ = away;
}

bool HostileProxy::away() {
  const std::lock_guard lock(mutex_);
  return away_;
}

Told HostileProxy::tell(const PassingReply& reply) {
  const std::lock_guard lock(mutex_);
  return liar_ ? liar_(reply) : Told{{reply.message}, {}};
}

}  // namespace dims::test
