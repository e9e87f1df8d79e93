dims_test(test_catalog
  SOURCES catalog_check_test.cc catalog_commit_test.cc catalog_diff_test.cc catalog_image_test.cc catalog_lease_test.cc
          catalog_maintenance_test.cc catalog_records_test.cc
  DEPS rdim_catalog)
target_compile_definitions(test_catalog PRIVATE DIMS_GOLDEN_FOLDER="${CMAKE_CURRENT_LIST_DIR}/golden")
