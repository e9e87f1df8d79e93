// LoginToken: the token that goes with every call of a channel, and how to get another one.
//
// Threads: thread-safe; one caller renews, the others wait for it. Ownership: shared by the
// channels that carry it; `renew` may use a channel of its own, never one that carries this token.
// Units: CLOCK_BOOTTIME. Errors: those of `renew`; a call goes without a token then and is refused.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "common/base/clock.h"
#include "common/trust/login.h"

namespace dims::client {

struct Token {
  trust::SessionToken token;
  std::chrono::seconds lasts{0};
};

class LoginToken {
 public:
  using Renew = std::function<Result<Token>()>;
  // `first`: one that was just got.
  explicit LoginToken(Renew renew, std::optional<Token> first = {}, Clock& clock = system_clock());
  ~LoginToken();
  LoginToken(const LoginToken&) = delete;
  LoginToken& operator=(const LoginToken&) = delete;

  // Good for some time yet; logs in if there is none.
  Result<trust::SessionToken> current();
  // The server does not know this one (any more).
  void refused(const trust::SessionToken& token);
  // Another way to log in, from the next call on.
  void replace(Renew renew);
  // Why the last renewal failed; ok if it did not.
  Status trouble();

 private:
  void keep(const Token& token);

  Renew renew_;
  Clock& clock_;
  std::mutex mutex_;
  std::optional<trust::SessionToken> token_;
  std::chrono::nanoseconds renew_at_{0};
  std::chrono::nanoseconds not_before_{0};
  Status trouble_;
};

}  // namespace dims::client
