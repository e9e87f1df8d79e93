// Renewal: another login of the same user into a disk that is in use, so that it has the newest
// keys and a certificate that lasts, and no guest notices.
//
// `ldim renew` asks for the passphrase and logs in; its result comes over the control socket sealed
// to a key of this process, so that it lies nowhere in clear but in the two processes' own memory.
// Threads: thread-safe. Ownership: what `apply` uses outlives it. Errors: kInvalidArgument (not for
// this key), those of `apply`.
#pragma once

#include <functional>
#include <string>
#include <nlohmann/json_fwd.hpp>

#include "common/crypto/box.h"
#include "nbdkit-ldim/login/login.h"

namespace dims::ldim {

class Renewal {
 public:
  using Apply = std::function<Status(SessionKeys)>;
  Renewal(const LoginWish& wish, Apply apply);

  // What the other side needs to log in and to answer.
  nlohmann::json begin() const;
  Status finish(const nlohmann::json& request);

  // The other side: logs in as `begun` says; gives the request that ends it.
  static Result<nlohmann::json> answer(const nlohmann::json& begun, ByteView passphrase);
  static std::string user_of(const nlohmann::json& begun);

 private:
  const LoginWish wish_;
  const Apply apply_;
  const crypto::BoxKey key_;
};

}  // namespace dims::ldim
