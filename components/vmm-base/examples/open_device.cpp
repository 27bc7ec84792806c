// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Opens a file that is there, and one that isn't.
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>

#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"

vmm_base::Result<vmm_base::UniqueFd> open_device(const char* path) {
  vmm_base::UniqueFd fd(::open(path, O_RDWR | O_CLOEXEC));
  if (!fd) return vmm_base::last_error("open");
  return fd;
}
vmm_base::Result<mode_t> kind_of(const char* path) {
  VMM_TRY(fd, open_device(path));  // declares fd, or returns the error
  struct stat about {};
  if (::fstat(fd.get(), &about) != 0) return vmm_base::last_error("fstat");
  return about.st_mode & S_IFMT;
}

int main() {
  const auto null = kind_of("/dev/null");
  const auto none = kind_of("/dev/nothing/here");
  std::puts(none.error().message().c_str());  // open: No such file or directory
  return null && null.value() == S_IFCHR && none.error().code == ENOENT ? 0 : 1;
}
