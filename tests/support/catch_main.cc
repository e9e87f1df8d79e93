#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>

#include "tests/support/seed.h"

int main(int argc, char* argv[]) {
  std::printf("DIMS_TEST_SEED=%llu\n", static_cast<unsigned long long>(dims::test::seed()));
  return Catch::Session().run(argc, argv);
}
