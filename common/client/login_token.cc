#include "common/client/login_token.h"

#include "common/crypto/hash.h"

namespace dims::client {
namespace {

// A refused login is not tried again at once: guesses are counted.
constexpr std::chrono::seconds kPauseAfterFailure{1};

}  // namespace

LoginToken::LoginToken(Renew renew, std::optional<Token> first, Clock& clock)
    : renew_(std::move(renew)), clock_(clock) {
  if (first) keep(*first);
}

LoginToken::~LoginToken() {
  if (token_) crypto::wipe(token_->mut());
}

void LoginToken::keep(const Token& token) {
  token_ = token.token;
  // Before it ends, so that no call is lost to the moment.
  renew_at_ = clock_.boottime() + token.lasts * 9 / 10;
  trouble_ = ok_status();
}

Result<trust::SessionToken> LoginToken::current() {
  const std::lock_guard lock(mutex_);
  const auto now = clock_.boottime();
  if (token_ && now < renew_at_) return *token_;
  if (!trouble_.ok() && now < not_before_) return trouble_.error();
  const auto fresh = renew_();
  if (!fresh.ok()) {
    trouble_ = fresh.error();
    not_before_ = clock_.boottime() + kPauseAfterFailure;
    return fresh.error();
  }
  keep(*fresh);
  return *token_;
}

void LoginToken::refused(const trust::SessionToken& token) {
  const std::lock_guard lock(mutex_);
  if (token_ && *token_ == token) token_.reset();
}

void LoginToken::replace(Renew renew) {
  const std::lock_guard lock(mutex_);
  renew_ = std::move(renew);
  token_.reset();
  trouble_ = ok_status();
}

Status LoginToken::trouble() {
  const std::lock_guard lock(mutex_);
  return trouble_;
}

}  // namespace dims::client
