# The documents: links lead somewhere, files and tests that they name exist; the manual pages can be made.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME docs
  COMMAND ${Python3_EXECUTABLE} -B ${CMAKE_CURRENT_SOURCE_DIR}/docs_test.py ${PROJECT_SOURCE_DIR})
add_test(NAME man_pages COMMAND ${Python3_EXECUTABLE} -B ${PROJECT_SOURCE_DIR}/scripts/man --check)
set_tests_properties(docs man_pages PROPERTIES TIMEOUT 60 LABELS docs)
