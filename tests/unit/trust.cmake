dims_test(test_trust
  SOURCES trust_test.cc
  DEPS dims_trust)
