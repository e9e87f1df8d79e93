# Collection against uploads, commits, branches and removals, under a seeded schedule.
dims_test(fault_collect
  SOURCES server_collect_world.cc server_collect_test.cc server_power_fs.cc
  DEPS rdim_catalog
  LABELS fault TIMEOUT 900)

# Damage to the server's store, by name: what check finds and what repair mends.
dims_test(fault_server_damage
  SOURCES server_damage_test.cc ../support/store_corruptors.cc
  DEPS rdim_catalog
  LABELS fault)

dims_test(fault_server_traps SOURCES server_traps_test.cc DEPS rdim_catalog LABELS fault)

# The server's power cuts and disk errors, below its engine.
dims_test(fault_server_error
  SOURCES server_power_fs.cc server_error_test.cc
  DEPS rdim_catalog
  LABELS fault TIMEOUT 900)
dims_test(fault_server_power
  SOURCES server_power_fs.cc server_power_test.cc
  DEPS rdim_catalog
  LABELS fault TIMEOUT 900)
