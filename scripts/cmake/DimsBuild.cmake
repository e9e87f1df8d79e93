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
pkg_check_modules(GCRYPT REQUIRED IMPORTED_TARGET libgcrypt)
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)
pkg_check_modules(LIBNBD REQUIRED IMPORTED_TARGET libnbd)
pkg_check_modules(NBDKIT REQUIRED IMPORTED_TARGET nbdkit)
# Not pkg-config: it needs twenty seconds for grpc++.pc and names sixty libraries that we do not call.
find_library(DIMS_GRPCPP grpc++ REQUIRED)
find_library(DIMS_GRPC grpc REQUIRED)
find_library(DIMS_GPR gpr REQUIRED)

find_program(DIMS_CCACHE ccache)
if(DIMS_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # Without these it would keep nothing that uses a precompiled header.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${DIMS_CCACHE})
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

# A test's time limit is there for what hangs; sanitized code is slow, and slower on a busy machine.
set(dims_patience 1)
if(DIMS_SANITIZE)
  set(dims_patience 6)
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

# What most files include and none is quick to parse, compiled once for all targets: the standard library and spdlog
# ("std"), with gRPC and our messages ("grpc"), with Catch2 ("test"). A file still includes what it needs: without these
# (preset "tidy") everything builds too.
set(dims_pch_std <algorithm> <array> <atomic> <chrono> <condition_variable> <cstdint> <cstring> <deque> <filesystem> <functional>
    <map> <memory> <mutex> <optional> <set> <shared_mutex> <span> <string> <thread> <unordered_map> <unordered_set>
    <variant> <vector> <spdlog/spdlog.h>)
set(dims_pch_grpc ${dims_pch_std} <grpcpp/grpcpp.h> [["dims/v1/access.grpc.pb.h"]] [["dims/v1/dims.grpc.pb.h"]])
set(dims_pch_test ${dims_pch_std} <fstream> <sstream> <nlohmann/json.hpp> <catch2/catch.hpp>)
set(dims_pch_grpc_test ${dims_pch_grpc} <fstream> <sstream> <nlohmann/json.hpp> <catch2/catch.hpp>)
set(dims_pch_definitions
    $<TARGET_PROPERTY:spdlog::spdlog,INTERFACE_COMPILE_DEFINITIONS> $<TARGET_PROPERTY:fmt::fmt,INTERFACE_COMPILE_DEFINITIONS>)
set(dims_quick_options $<$<CONFIG:RelWithDebInfo>:-O1>)  # tests, command lines: quicker to build than to run
set(dims_test_options ${dims_quick_options})
if(DIMS_SANITIZE)
  set(dims_test_options $<$<CONFIG:RelWithDebInfo>:-O0>)  # a quarter of the time; what they test stays as it is
endif()
# Precompiled headers must be compiled with the flags of those who use them.
set(CMAKE_CXX_COMPILE_OPTIONS_PIE ${CMAKE_CXX_COMPILE_OPTIONS_PIC})

# The headers' own targets, after the top of the repository has said where its includes are.
function(dims_make_pch)
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/pch/empty.cc CONTENT "")
  foreach(which std grpc test grpc_test)
    add_library(dims_pch_${which} OBJECT EXCLUDE_FROM_ALL ${CMAKE_BINARY_DIR}/pch/empty.cc)
    target_precompile_headers(dims_pch_${which} PRIVATE ${dims_pch_${which}})
    target_link_libraries(dims_pch_${which} PRIVATE dims_warnings spdlog::spdlog)
    target_compile_definitions(dims_pch_${which} PRIVATE ${dims_pch_definitions})
  endforeach()
  target_compile_options(dims_pch_test PRIVATE ${dims_test_options})
  target_compile_options(dims_pch_grpc_test PRIVATE ${dims_test_options})
endfunction()

function(dims_use_pch target which)
  if(DIMS_PCH)
    target_precompile_headers(${target} REUSE_FROM dims_pch_${which})
    target_compile_definitions(${target} PRIVATE ${dims_pch_definitions})
  endif()
endfunction()

# Our own code: warnings as errors, includes from the top of the repository, several sources at a time.
# dims_own(TARGET [std|grpc|test|grpc_test]): the precompiled header, if not the usual one.
function(dims_own target)
  set(pch ${ARGN})
  if(NOT pch)
    set(pch std)
  endif()
  target_link_libraries(${target} PRIVATE dims_warnings)
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR})
  if(pch MATCHES "test$")
    target_compile_options(${target} PRIVATE ${dims_test_options})
  endif()
  dims_use_pch(${target} ${pch})
  if(DIMS_UNITY)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE ${DIMS_UNITY})
    if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
      # gcc takes a source that another one includes for a header, and says what is true of headers only.
      target_compile_options(${target} PRIVATE -Wno-subobject-linkage)
    endif()
  endif()
  if(DIMS_CLANG_TIDY)
    set_target_properties(${target} PROPERTIES CXX_CLANG_TIDY ${DIMS_CLANG_TIDY_PROGRAM})
  endif()
endfunction()

# dims_library(NAME SOURCES a.cc ... DEPS lib ... [PCH which]): one folder, one static library.
function(dims_library name)
  cmake_parse_arguments(ARG "" "PCH" "SOURCES;DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC ${ARG_DEPS})
  dims_own(${name} ${ARG_PCH})
endfunction()

# A program of ours is its command line; what it does is in the libraries.
function(dims_program name)
  cmake_parse_arguments(ARG "" "PCH" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS})
  dims_own(${name} ${ARG_PCH})
  target_compile_options(${name} PRIVATE ${dims_quick_options})
endfunction()

# dims_test(NAME SOURCES ... DEPS ... [PCH which] [TIMEOUT s] [LABELS l]): a Catch2 program that ctest runs.
function(dims_test name)
  cmake_parse_arguments(ARG "" "PCH;TIMEOUT;LABELS" "SOURCES;DEPS" ${ARGN})
  if(NOT ARG_PCH)
    set(ARG_PCH test)
  elseif(DIMS_SANITIZE AND ARG_PCH STREQUAL grpc)
    set(ARG_PCH grpc_test)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE dims_catch_main ${ARG_DEPS})
  dims_own(${name} ${ARG_PCH})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  math(EXPR limit "${ARG_TIMEOUT} * ${dims_patience}")
  set_tests_properties(${name} PROPERTIES TIMEOUT ${limit} LABELS ${ARG_LABELS})
endfunction()
