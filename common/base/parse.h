// Sizes and durations as people write them ("64M", "1.5G", "30s"), and back.
// Errors: kInvalidArgument naming the text and the accepted forms.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/bytes.h"
#include "common/base/result.h"

namespace dims {

// Bytes; suffixes K M G T (powers of 1024), optional "iB"/"B", a fraction is allowed.
Result<std::uint64_t> parse_size(std::string_view text);
// "250ms", "30s", "5m", "2h"; a bare number is seconds.
Result<std::chrono::milliseconds> parse_duration(std::string_view text);
// "1.5 GiB"
std::string format_size(std::uint64_t bytes);

// The same text with '?' for every byte that is no UTF-8: names of files may be anything.
std::string printable_utf8(std::string_view text);

struct HostPort {
  std::string host;
  std::uint16_t port = 0;
};
// "HOST:PORT", "[V6]:PORT".
Result<HostPort> parse_host_port(std::string_view text);

// A server as people name it: "unix:PATH", "HOST:PORT" or "HOST:PORT#FINGERPRINT", the fingerprint
// of its certificate in 64 hex digits (colons between them are allowed).
struct ServerAddress {
  std::string address;  // without the fingerprint
  std::optional<Digest> fingerprint;
  bool is_unix() const { return address.starts_with("unix:"); }
};
Result<ServerAddress> parse_server(std::string_view text);

}  // namespace dims
