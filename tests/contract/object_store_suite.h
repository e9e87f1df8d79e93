// What every ObjectStore must do. A fixture opens the implementation; the suite asks it questions.
// Threads: one, except where a test makes more.
#pragma once

#include <functional>
#include <memory>

#include "common/base/clock.h"
#include "common/contract/object_store.h"

namespace dims::test {

class ObjectStoreFixture {
 public:
  virtual ~ObjectStoreFixture() = default;
  virtual contract::ObjectStore& store() = 0;
  // Flips a bit of the object where it lies.
  virtual void damage(const format::ObjectKey& key) = 0;

  ManualClock clock;
};

struct TestObject {
  format::ObjectKey key;
  Bytes bytes;
  contract::ObjectStore::PutItem item() const { return {key, bytes}; }
};
// A sealed chunk whose content follows from the number.
TestObject test_object(std::uint64_t number, std::uint8_t domain = 1);
std::vector<contract::ObjectStore::PutItem> items_of(const std::vector<TestObject>& objects);
Result<Bytes> get_one(contract::ObjectStore& store, const format::ObjectKey& key);

// Inside a TEST_CASE.
void object_store_suite(const std::function<std::unique_ptr<ObjectStoreFixture>()>& open);

}  // namespace dims::test
