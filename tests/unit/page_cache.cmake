dims_test(test_page_cache
  SOURCES page_cache_test.cc page_cache_damage_test.cc page_cache_fault_test.cc page_cache_format_test.cc
          page_cache_check_test.cc page_cache_tags_test.cc ${PROJECT_SOURCE_DIR}/tests/support/corruptors.cc
          ${PROJECT_SOURCE_DIR}/tests/support/sim_file.cc
  DEPS ldim_cache)
target_compile_definitions(test_page_cache PRIVATE DIMS_GOLDEN_FOLDER="${CMAKE_CURRENT_LIST_DIR}/golden")
