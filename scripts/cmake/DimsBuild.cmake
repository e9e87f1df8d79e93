# How every target of ours is built: warnings, sanitizers, ccache, linker; and the libraries we use.

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(spdlog REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(Protobuf REQUIRED)
find_package(absl REQUIRED)
pkg_check_modules(SODIUM REQUIRED IMPORTED_TARGET libsodium)
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)
pkg_check_modules(LIBNBD REQUIRED IMPORTED_TARGET libnbd)
pkg_check_modules(NBDKIT REQUIRED IMPORTED_TARGET nbdkit)
pkg_check_modules(GRPCPP REQUIRED IMPORTED_TARGET grpc++)

find_program(DIMS_CCACHE ccache)
if(DIMS_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${DIMS_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${DIMS_CCACHE})
endif()
find_program(DIMS_MOLD mold)
if(DIMS_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

# Names and lines for backtraces; -g would cost a third of every build.
add_compile_options($<$<CONFIG:RelWithDebInfo>:-g1>)

if(DIMS_SANITIZE)
  add_compile_options(-fsanitize=${DIMS_SANITIZE} -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=${DIMS_SANITIZE})
  # gcc 12 sees uninitialized values in instrumented code where there are none.
  add_compile_options($<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  if(DIMS_SANITIZE MATCHES undefined)
    add_compile_options(-fno-sanitize-recover=undefined)
  endif()
endif()

if(DIMS_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

add_library(dims_warnings INTERFACE)
target_compile_options(dims_warnings INTERFACE
  -Wall -Wextra -Wshadow -Wconversion -Wsign-conversion -Wnon-virtual-dtor -Woverloaded-virtual -Werror)
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  target_compile_options(dims_warnings INTERFACE -Wthread-safety)
endif()

if(DIMS_CLANG_TIDY)
  find_program(DIMS_CLANG_TIDY_PROGRAM clang-tidy REQUIRED)
endif()

# Our own code: warnings as errors, includes from the top of the repository.
function(dims_own target)
  target_link_libraries(${target} PRIVATE dims_warnings)
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR})
  if(DIMS_CLANG_TIDY)
    set_target_properties(${target} PROPERTIES CXX_CLANG_TIDY ${DIMS_CLANG_TIDY_PROGRAM})
  endif()
endfunction()

# dims_library(NAME SOURCES a.cc ... DEPS lib ...): one folder, one static library.
function(dims_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC ${ARG_DEPS})
  dims_own(${name})
endfunction()

function(dims_program name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS})
  dims_own(${name})
endfunction()

# dims_test(NAME SOURCES ... DEPS ... [TIMEOUT s] [LABELS l]): a Catch2 program that ctest runs.
function(dims_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT;LABELS" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE dims_catch_main ${ARG_DEPS})
  dims_own(${name})
  target_compile_options(${name} PRIVATE $<$<CONFIG:RelWithDebInfo>:-O1>)  # quicker to build than to run
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS ${ARG_LABELS})
endfunction()
