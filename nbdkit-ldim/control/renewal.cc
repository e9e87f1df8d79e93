#include "nbdkit-ldim/control/renewal.h"

#include <nlohmann/json.hpp>

#include "common/crypto/hash.h"

namespace dims::ldim {

using nlohmann::json;

Renewal::Renewal(const LoginWish& wish, Apply apply)
    : wish_(wish),
      apply_(std::move(apply)),
      key_(crypto::BoxKey::from_seed(crypto::SecretKey::random(system_random()))) {}

json Renewal::begin() const {
  return {{"machine_folder", wish_.machine_folder},
          {"user", wish_.user},
          {"image", wish_.image},
          {"writes", wish_.access >= trust::Access::kWrite},
          {"cache", wish_.cache_folder},
          {"box_key", key_.public_key.hex()}};
}

std::string Renewal::user_of(const json& begun) { return begun.value("user", ""); }

Result<json> Renewal::answer(const json& begun, ByteView passphrase) {
  const auto to = crypto::BoxPublicKey::from_hex_text(begun.value("box_key", ""));
  if (!to) {
    return make_error(ErrorCode::kInvalidArgument, "this LDIM cannot be renewed",
                      "start it again with user= and passphrase=");
  }
  const LoginWish wish{begun.value("machine_folder", ""), begun.value("user", ""),
                       begun.value("image", ""),
                       begun.value("writes", false) ? trust::Access::kWrite : trust::Access::kRead,
                       begun.value("cache", "")};
  DIMS_ASSIGN(const SessionKeys session, log_in(wish, passphrase));
  Bytes plain = encode_session_keys(session);
  const Bytes box = crypto::seal_box(*to, plain);
  crypto::wipe(plain);
  return json{{"command", "renew"}, {"box", to_hex(box)}, {"offline", session.offline}};
}

Status Renewal::finish(const json& request) {
  const auto box = from_hex(request.value("box", ""));
  const auto plain = box ? crypto::open_box(key_, *box) : std::nullopt;
  if (!plain) {
    return make_error(ErrorCode::kInvalidArgument, "the login is not for this LDIM",
                      "use 'ldim renew'");
  }
  DIMS_ASSIGN(SessionKeys session, decode_session_keys(plain->view()));
  return apply_(std::move(session));
}

}  // namespace dims::ldim
