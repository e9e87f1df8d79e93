# RDIM in memory, for tests of its clients.
add_library(dims_fake_remote STATIC
  ${CMAKE_CURRENT_LIST_DIR}/fake_remote.cc ${CMAKE_CURRENT_LIST_DIR}/fake_server.cc)
target_link_libraries(dims_fake_remote PUBLIC dims_contract Threads::Threads)
dims_own(dims_fake_remote test)
