dims_test(test_trust
  SOURCES trust_test.cc trust_rules_test.cc trust_log_test.cc trust_state_test.cc trust_grant_test.cc
          trust_user_test.cc trust_session_test.cc trust_login_test.cc trust_offline_test.cc
          trust_machine_test.cc trust_root_test.cc trust_golden_test.cc ${PROJECT_SOURCE_DIR}/tests/support/sim_file.cc
  DEPS dims_trust)
target_compile_definitions(test_trust PRIVATE
  DIMS_GOLDEN="${CMAKE_CURRENT_SOURCE_DIR}/golden" DIMS_FORMAT_PAGES="${PROJECT_SOURCE_DIR}/docs/formats")
