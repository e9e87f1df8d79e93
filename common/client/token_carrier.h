// Puts the token of a LoginToken onto every call of a channel (metadata "dims-token-bin").
// Threads: thread-safe. Ownership: the calls share the token. Errors: a token
// that the server has forgotten becomes kUnavailable, for the next call brings another; a login
// that failed becomes its own error.
#pragma once

#include <grpcpp/grpcpp.h>
#include <grpcpp/support/client_interceptor.h>

#include "common/client/login_token.h"

namespace dims::client {

inline constexpr const char* kTokenMetadata = "dims-token-bin";
// What the server says to a call whose token it does not know, and what becomes of that here.
inline constexpr const char* kLoginNeeded = "this needs a login";
inline constexpr const char* kLoginEnded = "the server has forgotten the login";

using InterceptorFactories =
    std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>>;
// Empty for nullptr.
InterceptorFactories carry(std::shared_ptr<LoginToken> token);

}  // namespace dims::client
