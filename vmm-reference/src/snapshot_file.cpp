// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "snapshot_file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "vmm_base/unique_fd.hpp"

namespace vmm_reference {

using vmm_base::Result;

namespace {

// Locked, and still the one of that name: who held the lock before has renamed his.
Result<vmm_base::UniqueFd> open_locked(const std::string& path) {
  for (;;) {
    vmm_base::UniqueFd file(
        ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR));
    if (!file) return vmm_base::last_error("open of the file beside");
    if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
      return vmm_base::last_error("lock of the file beside");
    }
    struct stat ours {};
    struct stat named {};
    if (::fstat(file.get(), &ours) != 0) return vmm_base::last_error("fstat");
    if (::stat(path.c_str(), &named) == 0 && named.st_ino == ours.st_ino &&
        named.st_dev == ours.st_dev) {
      return file;
    }
  }
}

Result<void> write_all(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t size = ::write(fd, bytes.data(), bytes.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return vmm_base::last_error("write", bytes.size());
    bytes = bytes.subspan(static_cast<std::size_t>(size));
  }
  return vmm_base::success();
}

Result<void> sync_folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const vmm_base::UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return vmm_base::last_error("open of the folder");
  // Some filesystems have nothing to do there, and say so.
  if (::fsync(fd.get()) != 0 && errno != EINVAL) return vmm_base::last_error("fsync of the folder");
  return vmm_base::success();
}

}  // namespace

Result<void> replace_file(const std::string& path,
                          const std::function<Result<void>(const ByteSink&)>& produce) {
  const std::string beside = path + ".tmp";
  VMM_TRY(file, open_locked(beside));
  const auto written = [&]() -> Result<void> {
    if (::ftruncate(file.get(), 0) != 0) return vmm_base::last_error("ftruncate");
    VMM_CHECK(
        produce([&](std::span<const std::byte> bytes) { return write_all(file.get(), bytes); }));
    if (::fsync(file.get()) != 0) return vmm_base::last_error("fsync");
    if (::rename(beside.c_str(), path.c_str()) != 0) return vmm_base::last_error("rename");
    return vmm_base::success();
  }();
  if (!written) {
    ::unlink(beside.c_str());
    return written;
  }
  return sync_folder_of(path);
}

}  // namespace vmm_reference
