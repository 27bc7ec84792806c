# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# What every component's CMakeLists.txt is made of:
#
#   project(xen-timer VERSION 0.1.0 LANGUAGES CXX)
#   include(../cmake/VmmComponent.cmake)
#   vmm_require(vmm_base 0.1)   # find_package, recorded for whoever installs us
#   vmm_component()             # target, headers, install rules, tests
#
# The version in project() and the line vmm_require() are the only places that
# state a version or a dependency. The target xen_timer::xen_timer is header-only
# unless src/*.cpp exist. c/CMakeLists.txt, where it exists, adds xen_timer_c: a
# library for users without C++, who get it from the same package; and so does
# double/CMakeLists.txt a library for users' tests, kvm_ioctls::double.

# A component that another one's vmm_require() brings in inherits variables: it starts with its own.
set(VMM_REQUIRED "")
set(VMM_PKG_CONFIG "")   # what a .pc file, and
set(VMM_DEBIAN "")       # what a Debian package requires
set(VMM_LINK "")
set(VMM_FIND_DEPENDENCIES "")

include_guard()
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)
include(${CMAKE_CURRENT_LIST_DIR}/VmmTree.cmake)
set(_VMM_CMAKE_DIR ${CMAKE_CURRENT_LIST_DIR})

# The first version after `version` that may break what was built for it.
function(_vmm_next_breaking version out)
  string(REGEX MATCH "^([0-9]+)\\.([0-9]+)" _ ${version})
  if(CMAKE_MATCH_1 EQUAL 0)
    math(EXPR next "${CMAKE_MATCH_2} + 1")
    set(${out} 0.${next} PARENT_SCOPE)
  else()
    math(EXPR next "${CMAKE_MATCH_1} + 1")
    set(${out} ${next}.0 PARENT_SCOPE)
  endif()
endfunction()

macro(vmm_require name version)
  find_package(${name} ${version} CONFIG REQUIRED)
  list(APPEND VMM_REQUIRED ${name})
  _vmm_next_breaking(${version} _next)
  string(REPLACE _ - _project ${name})
  list(APPEND VMM_PKG_CONFIG "vmm_${name} >= ${version}" "vmm_${name} < ${_next}")
  list(APPEND VMM_DEBIAN "lib${_project}-dev (>= ${version})" "lib${_project}-dev (<< ${_next}~)")
  string(APPEND VMM_FIND_DEPENDENCIES "find_dependency(${name} ${version} CONFIG)\n")
endmacro()

# Boost.Outcome, header-only: no imported target, so that installed packages stay free of Boost's.
macro(vmm_require_boost)
  find_package(Boost 1.74 REQUIRED)
  string(APPEND VMM_FIND_DEPENDENCIES "find_dependency(Boost 1.74)\n")
  list(APPEND VMM_LINK Boost::headers)
  list(APPEND VMM_DEBIAN "libboost-dev (>= 1.74)")
endmacro()

# A macro, as enable_testing() counts only in the directory's own scope.
macro(vmm_component)
  _vmm_library()
  if(PROJECT_IS_TOP_LEVEL)
    _vmm_debian()
  endif()
  vmm_tests()
endmacro()

function(_vmm_library)
  string(REPLACE - _ name ${PROJECT_NAME})
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS include/*.hpp)
  file(GLOB sources CONFIGURE_DEPENDS src/*.cpp)

  if(sources)
    add_library(${name} ${sources})
    set(scope PUBLIC)
    set(any_architecture "")
  else()
    add_library(${name} INTERFACE)
    set(scope INTERFACE)
    set(any_architecture ARCH_INDEPENDENT)
  endif()
  add_library(${name}::${name} ALIAS ${name})
  target_sources(${name} ${scope} FILE_SET HEADERS BASE_DIRS include FILES ${headers})
  target_compile_features(${name} ${scope} cxx_std_20)
  foreach(dependency IN LISTS VMM_REQUIRED)
    target_link_libraries(${name} ${scope} ${dependency}::${dependency})
  endforeach()
  target_link_libraries(${name} ${scope} ${VMM_LINK})

  # Before 1.0 the minor version is the one that breaks.
  if(PROJECT_VERSION_MAJOR EQUAL 0)
    set(compatibility SameMinorVersion)
    set(soversion 0.${PROJECT_VERSION_MINOR})
  else()
    set(compatibility SameMajorVersion)
    set(soversion ${PROJECT_VERSION_MAJOR})
  endif()
  set_target_properties(${name} PROPERTIES
    OUTPUT_NAME vmm_${name} VERSION ${PROJECT_VERSION} SOVERSION ${soversion}
    POSITION_INDEPENDENT_CODE ON VERIFY_INTERFACE_HEADER_SETS ${PROJECT_IS_TOP_LEVEL})

  set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/${name})
  configure_package_config_file(${_VMM_CMAKE_DIR}/config.cmake.in ${name}-config.cmake
    INSTALL_DESTINATION ${config_dir} NO_SET_AND_CHECK_MACRO NO_CHECK_REQUIRED_COMPONENTS_MACRO)
  # Paths from a .pc file on, so that the prefix can be moved.
  file(RELATIVE_PATH to_prefix ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
  file(RELATIVE_PATH to_lib ${CMAKE_INSTALL_PREFIX} ${CMAKE_INSTALL_FULL_LIBDIR})
  file(RELATIVE_PATH to_include ${CMAKE_INSTALL_PREFIX} ${CMAKE_INSTALL_FULL_INCLUDEDIR})
  foreach(extra c double)
    if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${extra}/CMakeLists.txt)
      string(TOUPPER BUILD_${extra} build)
      _vmm_option(${build} "Build the library of ${PROJECT_NAME} in ${extra}/")
      if(${option})
        set(any_architecture "")
        add_subdirectory(${extra})
      endif()
    endif()
  endforeach()
  write_basic_package_version_file(${name}-config-version.cmake
    VERSION ${PROJECT_VERSION} COMPATIBILITY ${compatibility} ${any_architecture})
  install(TARGETS ${name} EXPORT ${name} FILE_SET HEADERS COMPONENT ${name}
    LIBRARY COMPONENT ${name} ARCHIVE COMPONENT ${name} RUNTIME COMPONENT ${name})
  install(EXPORT ${name} NAMESPACE ${name}:: FILE ${name}-targets.cmake
    DESTINATION ${config_dir} COMPONENT ${name})
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${name}-config.cmake
    ${CMAKE_CURRENT_BINARY_DIR}/${name}-config-version.cmake
    DESTINATION ${config_dir} COMPONENT ${name})

  # For who builds without CMake.
  list(JOIN VMM_PKG_CONFIG ", " requires)
  set(libs "")
  if(sources)
    set(libs "-L\${libdir} -lvmm_${name}")
  endif()
  configure_file(${_VMM_CMAKE_DIR}/component.pc.in vmm_${name}.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/vmm_${name}.pc
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT ${name})
  install(FILES ${_VMM_CMAKE_DIR}/../../LICENSE-APACHE ${_VMM_CMAKE_DIR}/../../LICENSE-BSD-3-CLAUSE
    DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/doc/${PROJECT_NAME} COMPONENT ${name})
  set(VMM_ANY_ARCHITECTURE "${any_architecture}" PARENT_SCOPE)

  # In the tree find_package() is answered by FetchContent, whose own version file accepts any
  # request; ours makes a wrong version fail there as it does once installed.
  if(CMAKE_FIND_PACKAGE_REDIRECTS_DIR)
    file(COPY_FILE ${CMAKE_CURRENT_BINARY_DIR}/${name}-config-version.cmake
      ${CMAKE_FIND_PACKAGE_REDIRECTS_DIR}/${name}-config-version.cmake)
  endif()
endfunction()

# What `cpack` makes of a component that was configured alone: libxen-timer-dev, with all of it.
function(_vmm_debian)
  string(REPLACE - _ name ${PROJECT_NAME})
  set(CPACK_GENERATOR DEB)
  set(CPACK_PACKAGE_NAME lib${PROJECT_NAME}-dev)
  set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
  set(CPACK_PACKAGE_CONTACT "cpp-vmm <cpp-vmm@localhost>")
  set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_NAME}, a component of cpp-vmm for VMMs on Linux KVM")
  set(CPACK_RESOURCE_FILE_LICENSE ${_VMM_CMAKE_DIR}/../../LICENSE-APACHE)
  set(CPACK_COMPONENTS_ALL ${name})
  # Without the siblings that a build in the tree has with it: each is a package of its own.
  set(CPACK_INSTALL_CMAKE_PROJECTS "${CMAKE_BINARY_DIR};${PROJECT_NAME};${name};/")
  set(CPACK_DEB_COMPONENT_INSTALL OFF)
  set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
  set(CPACK_DEBIAN_PACKAGE_SECTION libdevel)
  list(JOIN VMM_DEBIAN ", " CPACK_DEBIAN_PACKAGE_DEPENDS)
  if(VMM_ANY_ARCHITECTURE)
    set(CPACK_DEBIAN_PACKAGE_ARCHITECTURE all)
  else()
    set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
    set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
  endif()
  include(CPack)
endfunction()

# XEN_TIMER_<name>, whose name it sets `option` to: on where the current project is the one being
# worked on.
macro(_vmm_option name text)
  string(REPLACE - _ option ${PROJECT_NAME}_${name})
  string(TOUPPER ${option} option)
  set(_default OFF)
  if(PROJECT_IS_TOP_LEVEL OR CMAKE_PROJECT_NAME STREQUAL "cpp-vmm")
    set(_default ON)
  endif()
  option(${option} ${text} ${_default})
endmacro()

# Adds tests/, c/tests/, fuzz/ and examples/ of the current project where it is the one being worked
# on, and a test of its README.md; and benches/ where VMM_BENCHES says so.
macro(vmm_tests)
  _vmm_option(BUILD_TESTS "Build the tests and examples of ${PROJECT_NAME}")
  set(_folders)
  if(${option})
    enable_testing()
    _vmm_readme_test()
    list(APPEND _folders tests c/tests fuzz examples)
  endif()
  if(VMM_BENCHES)
    list(APPEND _folders benches)
  endif()
  foreach(_folder IN LISTS _folders)
    if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${_folder}/CMakeLists.txt)
      add_subdirectory(${_folder})
    endif()
  endforeach()
endmacro()

# vmm_run_by_ctest(TARGET...): the target `unit_tests` has them. A sanitizer's preset builds no more.
function(vmm_run_by_ctest)
  if(NOT TARGET unit_tests)
    add_custom_target(unit_tests)
  endif()
  add_dependencies(unit_tests ${ARGN})
endfunction()

# The tests that README.md names are, in tests/ or in a required sibling's.
function(_vmm_readme_test)
  set(tests "${CMAKE_CURRENT_SOURCE_DIR}/tests/*.cpp")
  foreach(sibling IN LISTS VMM_REQUIRED)
    string(REPLACE _ - sibling ${sibling})
    list(APPEND tests "${_VMM_CMAKE_DIR}/../${sibling}/tests/*.cpp")
  endforeach()
  add_test(NAME ${PROJECT_NAME}.Readme.NamesTestsThatAre
    COMMAND ${CMAKE_COMMAND} -DREADME=${PROJECT_SOURCE_DIR}/README.md "-DTESTS=${tests}"
      -DWHOLE_TREE=${_VMM_CMAKE_DIR}/../.. -P ${_VMM_CMAKE_DIR}/readme_names_tests.cmake)
  set_tests_properties(${PROJECT_NAME}.Readme.NamesTestsThatAre PROPERTIES LABELS unit)
endfunction()

# vmm_example(NAME [ARGUMENT...]): NAME.cpp, a program that is run as a test. What READMEs show is such
# a program's, or a test's; tests/style/run looks.
function(vmm_example name)
  string(REPLACE - _ component ${PROJECT_NAME})
  add_executable(${name} ${name}.cpp)
  target_link_libraries(${name} PRIVATE ${component}::${component})
  set_target_properties(${name} PROPERTIES CXX_STANDARD 20 CXX_STANDARD_REQUIRED ON CXX_EXTENSIONS OFF)
  add_test(NAME ${PROJECT_NAME}.Examples.${name} COMMAND ${name} ${ARGN})
  vmm_run_by_ctest(${name})
  set_tests_properties(${PROJECT_NAME}.Examples.${name} PROPERTIES LABELS unit)
endfunction()

# With VMM_PRECOMPILE, what every test includes is compiled once: about half of a test's compile time.
# Some preset has to do without, or what a file forgets to include isn't seen.
option(VMM_PRECOMPILE "Compile the headers of GoogleTest and Boost.Outcome once for all tests" OFF)
function(_vmm_precompiled name)
  if(NOT VMM_PRECOMPILE)
    return()
  endif()
  if(NOT TARGET vmm_precompiled)
    find_package(GTest REQUIRED)
    file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/precompiled.cpp CONTENT "")
    add_library(vmm_precompiled OBJECT ${CMAKE_BINARY_DIR}/precompiled.cpp)
    target_link_libraries(vmm_precompiled PRIVATE GTest::gtest)
    set_target_properties(vmm_precompiled PROPERTIES
      CXX_STANDARD 20 CXX_STANDARD_REQUIRED ON CXX_EXTENSIONS OFF)
    # So that a compiler cache knows it again.
    target_compile_options(vmm_precompiled PRIVATE
      "$<$<CXX_COMPILER_ID:Clang>:SHELL:-Xclang -fno-pch-timestamp>")
    target_precompile_headers(vmm_precompiled PRIVATE <gtest/gtest.h> <boost/outcome/basic_result.hpp>
      <boost/outcome/policy/all_narrow.hpp> <boost/outcome/try.hpp> <algorithm> <chrono> <functional>
      <map> <mutex> <optional> <span> <string> <thread> <variant> <vector>)
  endif()
  target_precompile_headers(${name} REUSE_FROM vmm_precompiled)
endfunction()

# vmm_test(NAME LABEL... [LINK target...]): NAME.cpp is a GoogleTest program; LABELS say what it
# needs beyond a CPU (kvm: a /dev/kvm; lab: a KVM_XEN kernel, see tests/lab).
function(vmm_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "LINK;LABELS;SOURCES")
  find_package(GTest REQUIRED)
  include(GoogleTest)
  add_executable(${name} ${name}.cpp ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_LINK} GTest::gtest_main)
  set_target_properties(${name} PROPERTIES CXX_STANDARD 20 CXX_STANDARD_REQUIRED ON CXX_EXTENSIONS OFF)
  _vmm_precompiled(${name})
  if(NOT arg_LABELS)
    set(arg_LABELS unit)
  endif()
  if(NOT "lab" IN_LIST arg_LABELS)
    vmm_run_by_ctest(${name})
    gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST TEST_PREFIX ${PROJECT_NAME}.
      PROPERTIES LABELS "${arg_LABELS}" SKIP_REGULAR_EXPRESSION "\\[  SKIPPED \\]")
  endif()
endfunction()

# Whether VAR: a sanitizer, which allocates and calls by itself, is linked to what is built.
function(vmm_sanitized var)
  string(TOUPPER "CMAKE_CXX_FLAGS_${CMAKE_BUILD_TYPE}" flags)
  string(FIND "${CMAKE_CXX_FLAGS} ${${flags}}" "-fsanitize=" at)
  if(at EQUAL -1)
    set(${var} FALSE PARENT_SCOPE)
  else()
    set(${var} TRUE PARENT_SCOPE)
  endif()
endfunction()

# vmm_faults_test(NAME [SANITIZED] …): the same, with faults/failing_calls.hpp. With a sanitizer there
# is none, or, if SANITIZED, one of what can do without: see FAILING_CALLS_NONE in that header.
function(vmm_faults_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "SANITIZED" "" "LINK")
  vmm_sanitized(sanitized)
  if(sanitized AND arg_SANITIZED)
    vmm_test(${name} LINK ${arg_LINK})
    target_compile_definitions(${name} PRIVATE FAILING_CALLS_NONE)
  elseif(sanitized)
    return()
  else()
    vmm_test(${name} LABELS faults LINK ${arg_LINK} SOURCES ${_VMM_CMAKE_DIR}/faults/failing_calls.cpp)
    target_link_libraries(${name} PRIVATE ${CMAKE_DL_LIBS})
  endif()
  target_include_directories(${name} PRIVATE ${_VMM_CMAKE_DIR}/faults)
endfunction()

# vmm_bench(NAME [LINK target...]): NAME.cpp is a Google Benchmark program; the target `benches` has
# all of them.
function(vmm_bench name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "LINK")
  find_package(benchmark REQUIRED)
  add_executable(${name} ${name}.cpp)
  target_link_libraries(${name} PRIVATE ${arg_LINK} benchmark::benchmark_main)
  set_target_properties(${name} PROPERTIES CXX_STANDARD 20 CXX_STANDARD_REQUIRED ON CXX_EXTENSIONS OFF)
  if(NOT TARGET benches)
    add_custom_target(benches)
  endif()
  add_dependencies(benches ${name})
endfunction()

# vmm_fuzz(NAME [LINK target...]): NAME.cpp has libFuzzer's entry point. With VMM_FUZZ it is a
# fuzzer, fuzzers/NAME in the build folder; else a test that runs the inputs of NAME.inputs, each once.
option(VMM_FUZZ "Link fuzz targets with libFuzzer, which clang alone has" OFF)
function(vmm_fuzz name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "LINK")
  # Of clang's, but good for any compiler. On its own: g++ must not see its neighbours.
  file(GLOB provider /usr/lib/llvm-*/lib/clang/*/include/fuzzer/FuzzedDataProvider.h)
  if(NOT provider)
    message(FATAL_ERROR "no fuzzer/FuzzedDataProvider.h, of which Debian's package is libclang-rt-14-dev")
  endif()
  list(GET provider -1 provider)
  file(COPY ${provider} DESTINATION ${CMAKE_BINARY_DIR}/fuzz-include/fuzzer)

  add_executable(${name} ${name}.cpp)
  target_link_libraries(${name} PRIVATE ${arg_LINK})
  target_include_directories(${name} PRIVATE ${_VMM_CMAKE_DIR}/fuzz)
  target_include_directories(${name} SYSTEM PRIVATE ${CMAKE_BINARY_DIR}/fuzz-include)
  set_target_properties(${name} PROPERTIES CXX_STANDARD 20 CXX_STANDARD_REQUIRED ON CXX_EXTENSIONS OFF)
  set(inputs ${CMAKE_CURRENT_SOURCE_DIR}/${name}.inputs)
  if(VMM_FUZZ)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzzers)
    configure_file(${inputs} ${CMAKE_BINARY_DIR}/fuzzers/${name}.inputs COPYONLY)
    if(NOT TARGET fuzzers)
      add_custom_target(fuzzers)
    endif()
    add_dependencies(fuzzers ${name})
  else()
    target_sources(${name} PRIVATE ${_VMM_CMAKE_DIR}/fuzz/replay.cpp)
    set_target_properties(${name} PROPERTIES UNITY_BUILD OFF)
    add_test(NAME ${PROJECT_NAME}.Fuzz.${name} COMMAND ${name} ${inputs})
    vmm_run_by_ctest(${name})
    set_tests_properties(${PROJECT_NAME}.Fuzz.${name} PROPERTIES LABELS unit)
  endif()
endfunction()
