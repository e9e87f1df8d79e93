// HeldKey: a 32-byte key that several parts of a program use. One copy of it, in memory that is
// locked, left out of core dumps, between guard pages that keys share, wiped with its last holder.
//
// Threads: a value; copies share one key that never changes. Ownership: shared. Units: bytes.
// Errors: no memory aborts. Reading it costs what a pointer costs.
#pragma once

#include <memory>
#include <string>

#include "common/base/bytes.h"

namespace dims::crypto {

class HeldKey {
 public:
  HeldKey() = default;  // zeros
  // NOLINTNEXTLINE(google-explicit-constructor): keys are drawn and derived as Secret32.
  HeldKey(const Secret32& key);
  // Wipes where it came from.
  HeldKey(Secret32&& key);  // NOLINT(google-explicit-constructor)

  const Secret32& key() const;
  operator const Secret32&() const { return key(); }  // NOLINT(google-explicit-constructor)
  ByteView view() const { return key().view(); }
  std::string hex() const { return key().hex(); }
  bool is_zero() const { return key().is_zero(); }

  friend bool operator==(const HeldKey& a, const HeldKey& b) { return a.key() == b.key(); }
  friend bool operator==(const HeldKey& a, const Secret32& b) { return a.key() == b; }

 private:
  std::shared_ptr<const Secret32> at_;
};

}  // namespace dims::crypto
