dims_test(test_disk SOURCES disk_test.cc disk_session_test.cc folder_check_test.cc
                  ${CMAKE_CURRENT_SOURCE_DIR}/../support/corruptors.cc ${CMAKE_CURRENT_SOURCE_DIR}/../support/sim_file.cc
          DEPS ldim_disk ldim_control dims_fake_remote TIMEOUT 300)
