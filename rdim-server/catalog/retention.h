// Retention: which versions of an image keep their data. The head, the bases of sessions and the
// origins of branches always do; this decides about the rest.
//
// Like restic's: walking from the newest to the oldest, the first of every hour, day and week
// stays, so many of each; the newest N stay anyway. Times are the writers' clocks: a time later
// than that of a newer version counts as that one's.
//
// Threads: values. Errors: kInvalidArgument of parse. Durable: encode() is the record
// (docs/formats/store.md).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/base/bytes.h"
#include "common/base/result.h"

namespace dims::catalog {

struct RetentionPolicy {
  bool all = false;  // nothing goes
  std::uint32_t last = 10;
  std::uint32_t hourly = 24;
  std::uint32_t daily = 14;
  std::uint32_t weekly = 8;
  friend bool operator==(const RetentionPolicy&, const RetentionPolicy&) = default;
};

// "all", or parts such as "last=10,hourly=24,daily=14,weekly=8"; a part that is not named is 0.
Result<RetentionPolicy> parse_retention(const std::string& text);
std::string text_of(const RetentionPolicy& policy);
Bytes encode_retention(const RetentionPolicy& policy);
Result<RetentionPolicy> decode_retention(ByteView bytes);

// Asked for every version of one image, newest first.
class RetentionChooser {
 public:
  explicit RetentionChooser(const RetentionPolicy& policy) : policy_(policy) {}
  bool keep(std::uint64_t time_unix_ns);

 private:
  struct Every {
    std::optional<std::uint64_t> period;  // of the version that was kept last for it
    std::uint32_t kept = 0;
  };
  static bool take(Every& every, std::uint64_t period, std::uint32_t max);

  const RetentionPolicy policy_;
  std::uint64_t seen_ = 0;
  std::uint64_t time_ = ~std::uint64_t{0};
  Every hour_, day_, week_;
};

}  // namespace dims::catalog
