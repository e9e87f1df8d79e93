dims_test(test_format
  SOURCES format_test.cc format_node_test.cc format_version_test.cc format_key_file_test.cc format_golden_test.cc
  DEPS dims_format PkgConfig::ZSTD)
target_compile_definitions(test_format PRIVATE
  DIMS_GOLDEN="${CMAKE_CURRENT_SOURCE_DIR}/golden" DIMS_FORMAT_PAGES="${PROJECT_SOURCE_DIR}/docs/formats")
