dims_test(test_page_cache
  SOURCES page_cache_test.cc
  DEPS ldim_cache)
