#include "common/client/token_carrier.h"

#include "common/client/grpc_status.h"

namespace dims::client {
namespace {

namespace ex = grpc::experimental;

class Carrier : public ex::Interceptor {
 public:
  explicit Carrier(std::shared_ptr<LoginToken> token) : token_(std::move(token)) {}

  void Intercept(ex::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(ex::InterceptionHookPoints::PRE_SEND_INITIAL_METADATA))
      send(*methods);
    if (methods->QueryInterceptionHookPoint(ex::InterceptionHookPoints::POST_RECV_STATUS))
      look_at(*methods);
    methods->Proceed();
  }

 private:
  void send(ex::InterceptorBatchMethods& methods) {
    const auto token = token_->current();
    if (!token.ok()) return;
    sent_ = *token;
    methods.GetSendInitialMetadata()->emplace(kTokenMetadata, std::string(as_text(token->view())));
  }
  // "Log in" is not for the caller to answer: it becomes why that failed, or "try again".
  void look_at(ex::InterceptorBatchMethods& methods) {
    grpc::Status* const status = methods.GetRecvStatus();
    if (status->ok() || !status->error_message().starts_with(kLoginNeeded)) return;
    if (sent_) token_->refused(*sent_);
    const Status trouble = token_->trouble();
    *status = to_grpc(trouble.ok() ? make_error(ErrorCode::kUnavailable, kLoginEnded,
                                                "it is made anew and the call tried again")
                                   : trouble.error());
  }

  const std::shared_ptr<LoginToken> token_;
  std::optional<trust::SessionToken> sent_;
};

class Factory : public ex::ClientInterceptorFactoryInterface {
 public:
  explicit Factory(std::shared_ptr<LoginToken> token) : token_(std::move(token)) {}
  ex::Interceptor* CreateClientInterceptor(ex::ClientRpcInfo*) override {
    return new Carrier(token_);
  }

 private:
  const std::shared_ptr<LoginToken> token_;
};

}  // namespace

InterceptorFactories carry(std::shared_ptr<LoginToken> token) {
  InterceptorFactories out;
  if (token) out.push_back(std::make_unique<Factory>(std::move(token)));
  return out;
}

}  // namespace dims::client
