dims_test(test_disk SOURCES disk_test.cc disk_session_test.cc disk_ack_test.cc folder_check_test.cc
          DEPS ldim_disk ldim_control dims_sim_file dims_fake_remote TIMEOUT 300)
