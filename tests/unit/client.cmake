add_library(dims_client_service STATIC client_service.cc client_link.cc)
target_link_libraries(dims_client_service PUBLIC dims_client dims_fake_remote dims_catch_main)
target_precompile_headers(dims_client_service PRIVATE ${PROJECT_SOURCE_DIR}/common/client/pch.h)
dims_own(dims_client_service)
dims_test(test_client
  SOURCES client_test.cc client_calls_test.cc client_break_test.cc client_status_test.cc
  DEPS dims_client_service TIMEOUT 600)
# Alone, for it counts the threads of its process.
dims_test(test_client_process SOURCES client_process_test.cc DEPS dims_client)
dims_test(test_client_member SOURCES client_member_test.cc DEPS dims_client)
