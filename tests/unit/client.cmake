dims_test(test_client
  SOURCES client_test.cc client_calls_test.cc client_break_test.cc client_roaming_test.cc client_status_test.cc
          client_service.cc client_link.cc
  DEPS dims_client dims_fake_remote TIMEOUT 600 PCH grpc)
# Alone, for it counts the threads of its process.
dims_test(test_client_process SOURCES client_process_test.cc DEPS dims_client)
dims_test(test_client_member SOURCES client_member_test.cc DEPS dims_client)
