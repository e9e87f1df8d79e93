dims_test(test_journal
  SOURCES journal_test.cc journal_arrival_test.cc journal_damage_test.cc journal_fault_test.cc journal_format_test.cc
    journal_check_test.cc journal_unreadable_test.cc journal_merge_test.cc journal_bound_test.cc journal_salvage_test.cc pending_map_test.cc
  DEPS ldim_journal ldim_pagemap dims_sim_file)
target_compile_definitions(test_journal PRIVATE DIMS_GOLDEN="${CMAKE_CURRENT_LIST_DIR}/golden")
