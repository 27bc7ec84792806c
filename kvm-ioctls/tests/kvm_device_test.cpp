// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Stands in for libc's ioctl() in the tests against a real /dev/kvm, and holds what the kernel did
// against the README's table, where all tests ran: by uname's series where LAB is set, else as the
// row's /dev/kvm. It tells on what each succeeded: "KVM_RUN Vcpu ok", or the last errno.
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "ioctl_numbers.hpp"
#include "readme_table.hpp"

namespace {

using namespace kvm_ioctls;

std::mutex mutex;
// By number and handle: 0 once it succeeded, else the last errno.
std::map<std::pair<unsigned long, std::string>, int> outcomes;

// Whose fd it is.
std::string handle_of(int fd) {
  char name[64] = "";
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  if (::readlink(link.c_str(), name, sizeof(name) - 1) < 0) return "none";
  const std::string file = name;
  if (file == "/dev/kvm") return "Kvm";
  if (file == "anon_inode:kvm-vm") return "Vm";
  if (file.rfind("anon_inode:kvm-vcpu:", 0) == 0) return "Vcpu";
  if (file.rfind("anon_inode:kvm-", 0) == 0) return "Device";
  return "none";
}

// Whether it succeeded, or was called at all, on a handle of the row.
struct Seen {
  bool called = false;
  bool succeeded = false;
};
Seen seen(const Row& row) {
  Seen answer;
  const auto number = ioctl_numbers.find(row.ioctl);
  if (number == ioctl_numbers.end()) {
    ADD_FAILURE() << row.ioctl << " is not in ioctl_numbers.hpp";
    return answer;
  }
  // Whose ioctl it is: its own class names it, but for what a Vm registers and device attributes.
  const std::string whose = row.methods.substr(1, row.methods.find("::") - 1);
  const bool any = whose.find(", ") != std::string::npos;
  for (const std::string handle : {"Kvm", "Vm", "Vcpu", "Device"}) {
    if (!any && handle != (whose == "CoalescedMmioZone" ? "Vm" : whose)) continue;
    const auto outcome = outcomes.find({number->second, handle});
    if (outcome == outcomes.end()) continue;
    answer.called = true;
    answer.succeeded = answer.succeeded || outcome->second == 0;
  }
  return answer;
}

// "unit, /dev/kvm, lab 7.3 7.2": for a series, whether it is promised.
bool promises_lab(const Row& row, const std::string& series) {
  const auto lab = row.where.find(", lab");
  if (lab == std::string::npos) return false;
  const std::string which = row.where.substr(lab + 5);
  return which.empty() || which.find(" " + series) != std::string::npos;
}

struct Table : testing::Environment {
  void TearDown() override {
    const std::scoped_lock lock(mutex);
    if (testing::GTEST_FLAG(filter) != "*" || outcomes.empty()) return;
    for (const auto& [name, number] : ioctl_numbers) {
      for (const auto& [what, error] : outcomes) {
        if (what.first != number) continue;
        std::printf("%s %s %s\n", name.c_str(), what.second.c_str(),
                    error == 0 ? "ok" : strerrorname_np(error));
      }
    }
    utsname system{};
    ::uname(&system);
    const std::string release = system.release;
    const std::string series = release.substr(0, release.find_first_not_of("0123456789."));
    const std::string two = series.substr(0, series.find('.', series.find('.') + 1));
    const bool skips = testing::UnitTest::GetInstance()->skipped_test_count() != 0;
    const auto rows = read_table();
    EXPECT_GE(rows.size(), 110u);
    for (const Row& row : rows) {
      const Seen here = seen(row);
      if (row.where.find("needs ") != std::string::npos) {
        EXPECT_TRUE(here.called || skips) << row << " was not called";
        EXPECT_FALSE(here.succeeded) << row << " succeeded here";
      } else if (std::getenv("LAB") != nullptr) {
        EXPECT_EQ(here.succeeded, promises_lab(row, two)) << row << " on " << two;
      } else if (row.where.find(", /dev/kvm") != std::string::npos) {
        // A test that skips, as this kernel lacks something, calls less.
        EXPECT_TRUE(here.succeeded || (skips && !here.called)) << row << " did not succeed here";
      }
    }
  }
};
const auto* const table = testing::AddGlobalTestEnvironment(new Table);

}  // namespace

extern "C" int ioctl(int fd, unsigned long request, ...) noexcept {
  va_list arguments;
  va_start(arguments, request);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  const long result = ::syscall(SYS_ioctl, fd, request, argument);
  const int error = result < 0 ? errno : 0;
  if (_IOC_TYPE(request) == KVMIO) {
    const std::scoped_lock lock(mutex);
    const auto [at, is_new] = outcomes.emplace(std::pair(request, handle_of(fd)), error);
    if (!is_new && at->second != 0) at->second = error;
  }
  errno = error;
  return static_cast<int>(result);
}
