# The real programs, driven from outside (label: system). Each file says at its top what it shows; by hand, and with
# larger sizes: scripts/soak. The interpreter is the
# distribution's, because libnbd's module belongs to it.
foreach(test
    exactness fio_verify kill_nbdkit kill_server restart_under_guest offline diskless
    bad_input damage other_history slow_link memory two_machines hand_over restored_client new_version fill full_disk guest tls salvage
    organisation member_branch recovery interrupted wipe rotation escrow private_files tpm canary roaming thin_link let_go
    failed_disk quota patient_import server_check)
  add_test(NAME system_${test}
    COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_SOURCE_DIR}/${test}.py --build ${CMAKE_BINARY_DIR})
  math(EXPR limit "900 * ${dims_patience}")
  set_tests_properties(system_${test} PROPERTIES TIMEOUT ${limit} LABELS system SKIP_RETURN_CODE 77)
endforeach()
# The longest begin first (most of it is waiting), so that none runs on alone at the end.
set_tests_properties(system_wipe system_full_disk system_guest system_thin_link PROPERTIES COST 60)
