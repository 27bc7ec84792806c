# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# README shows the run loop and the tests of double_example_test.cpp as they are.
file(READ ${CMAKE_CURRENT_LIST_DIR}/double_example_test.cpp code)
file(READ ${CMAKE_CURRENT_LIST_DIR}/../README.md readme)
string(REGEX REPLACE "^.*\n(TEST\\(MyVmm, Gives.*\n)\n}  // namespace\n$" "\\1" shown "${code}")
string(REGEX REPLACE "^.*\n(vmm_base::Result<void> run_to_the_end.*\n}\n)\nTEST\\(RunLoop.*$" "\\1" loop "${code}")
string(FIND "${readme}" "${shown}" place)
string(FIND "${readme}" "${loop}" loop_place)
if(place EQUAL -1 OR shown STREQUAL code OR loop_place EQUAL -1 OR loop STREQUAL code)
  message(FATAL_ERROR "README.md doesn't show the run loop and the tests of double_example_test.cpp")
endif()
