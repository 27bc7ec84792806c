// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "linux_loader/mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>

#include "vmm_base/unique_fd.hpp"

namespace linux_loader {

vmm_base::Result<MappedFile> MappedFile::open(const char* path) {
  // A FIFO without a writer would hold us up.
  const vmm_base::UniqueFd fd(::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return vmm_base::last_error("open");
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return vmm_base::last_error("fstat");
  if (!S_ISREG(status.st_mode)) {
    return vmm_base::Error{"map what isn't a regular file", EINVAL, status.st_mode};
  }
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size == 0) return MappedFile({});
  // All of it is read, so don't fault it in page by page.
  void* bytes = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd.get(), 0);
  if (bytes == MAP_FAILED) return vmm_base::last_error("mmap of a file", size);
  return MappedFile({static_cast<std::byte*>(bytes), size});
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
}

}  // namespace linux_loader
