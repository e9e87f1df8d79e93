dims_test(test_catalog_collect
  SOURCES catalog_collect_test.cc
  DEPS rdim_catalog)
