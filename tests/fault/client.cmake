# What threatens LDIM, one situation a test, through the whole disk.
dims_test(fault_client
  SOURCES client_writes_test.cc client_reads_test.cc client_versions_test.cc local_records_test.cc security_traps_test.cc branch_traps_test.cc
  DEPS ldim_disk dims_sim_file dims_fake_remote
  LABELS fault TIMEOUT 300)
