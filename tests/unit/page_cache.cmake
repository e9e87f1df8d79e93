dims_test(test_page_cache
  SOURCES page_cache_test.cc page_cache_damage_test.cc page_cache_fault_test.cc page_cache_format_test.cc
          page_cache_check_test.cc page_cache_tags_test.cc
  DEPS ldim_cache dims_sim_file)
target_compile_definitions(test_page_cache PRIVATE DIMS_GOLDEN_FOLDER="${CMAKE_CURRENT_LIST_DIR}/golden")
