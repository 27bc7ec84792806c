# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Fails if a header below FACE includes, itself or by what it includes, anything but the standard
# libraries, the kernel's UAPI, Boost by way of vmm_base, and the components that xen-timer names.
# COMPILER, and INCLUDES, the folders that it is given, with | between.
string(REPLACE "|" ";-I" folders "-I${INCLUDES}")
set(components vmm_base xen_abi xen_clock xen_timer)
list(JOIN components "|" ours)

# What libc has outside of folders of its own.
set(libc aio alloca assert ctype dirent endian errno fcntl features features-time64 inttypes limits
  locale math poll pthread sched semaphore setjmp signal stdc-predef stdint stdio stdlib string
  strings syscall time unistd wchar wctype)
list(JOIN libc "|" libc)
set(allowed
  "/(${ours})/[a-z_]+\\.hp?p?$"
  "/xen_timer\\.h$"
  "/boost/"
  "/c\\+\\+/[0-9.]+/|/lib/(gcc|llvm|clang)"
  "/include/(linux|asm|asm-generic)/|/include/[a-z0-9_]+-linux-gnu/(asm|bits|gnu|sys)/|/include/(bits|gnu|sys)/"
  "/include/(${libc})\\.h$")

set(wrong "")
file(GLOB_RECURSE headers ${FACE}/*.hpp ${FACE}/*.h)
foreach(header IN LISTS headers)
  file(STRINGS ${header} directly REGEX "^ *#")
  foreach(line IN LISTS directly)
    if(line MATCHES "include [<\"]([^>\"]+)/[^/]*[>\"]" AND
        NOT CMAKE_MATCH_1 MATCHES "^(${ours}|linux|sys)$")
      list(APPEND wrong "${header}: ${line}")
    endif()
  endforeach()

  execute_process(COMMAND ${COMPILER} -std=c++20 ${folders} -M -x c++ ${header}
    OUTPUT_VARIABLE found COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX REPLACE "^[^:]*:|\\\\\n" " " found "${found}")
  separate_arguments(found UNIX_COMMAND "${found}")
  foreach(file IN LISTS found)
    get_filename_component(file ${file} ABSOLUTE)
    set(known FALSE)
    foreach(pattern IN LISTS allowed)
      if(file MATCHES "${pattern}")
        set(known TRUE)
      endif()
    endforeach()
    if(NOT known)
      list(APPEND wrong "${header}: ${file}")
    endif()
  endforeach()
  list(LENGTH found count)
  message(STATUS "${header}: ${count} files")
endforeach()
if(wrong OR NOT headers)
  list(JOIN wrong "\n  " wrong)
  message(FATAL_ERROR "included where it shouldn't be:\n  ${wrong}")
endif()
