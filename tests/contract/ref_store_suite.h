// What every RefStore must do. Threads: one, except where a test makes more.
#pragma once

#include "common/contract/ref_store.h"

namespace dims::test {

// Inside a TEST_CASE, on an empty store.
void ref_store_suite(contract::RefStore& store);

}  // namespace dims::test
