dims_test(test_ldim_formats SOURCES ldim_formats_test.cc DEPS ldim_disk)
target_compile_definitions(test_ldim_formats PRIVATE DIMS_GOLDEN_FOLDER="${CMAKE_CURRENT_LIST_DIR}/golden")
