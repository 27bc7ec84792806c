# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Where the components stand in this tree. Declared so that find_package(xen_abi 0.1) is answered
# from the tree, and only by what is asked for; with VMM_TREE=OFF, or where a sibling's folder is
# missing, from an installed package.

include_guard(GLOBAL)
include(FetchContent)
option(VMM_TREE "Find sibling components in this source tree" ON)

set(VMM_COMPONENTS "" CACHE INTERNAL "")
get_filename_component(_vmm_root ${CMAKE_CURRENT_LIST_DIR}/../.. ABSOLUTE)

foreach(_dir
    components/vmm-base components/vm-memory components/xen-abi components/xen-clock
    components/xen-timer components/xen-evtchn components/linux-loader components/vm-superio
    components/vfio-ioctls
    kvm-ioctls xen-hcall)
  if(NOT EXISTS ${_vmm_root}/${_dir}/CMakeLists.txt)
    continue()
  endif()
  get_filename_component(_name ${_dir} NAME)
  string(REPLACE - _ _name ${_name})
  set(VMM_COMPONENTS ${VMM_COMPONENTS} ${_name} CACHE INTERNAL "")
  if(VMM_TREE)
    string(TOUPPER ${_name} _upper)
    set(FETCHCONTENT_SOURCE_DIR_${_upper} ${_vmm_root}/${_dir} CACHE INTERNAL "")
    FetchContent_Declare(${_name} SOURCE_DIR ${_vmm_root}/${_dir} OVERRIDE_FIND_PACKAGE)
  endif()
endforeach()
