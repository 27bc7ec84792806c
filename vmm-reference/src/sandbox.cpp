// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "sandbox.hpp"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "raw_terminal.hpp"
#include "system_calls.hpp"
#include "vmm_base/unique_fd.hpp"

namespace vmm_reference::sandbox {

namespace {

using vmm_base::Error;
using vmm_base::last_error;
using vmm_base::Result;
using Program = std::vector<sock_filter>;

// For threads that start later; never changed once entered.
std::array<Program, all + 1> programs;  // by who
bool entered = false;
std::vector<int> inherited;

// --- a violation
// -----------------------------------------------------------------------------------

// seccomp_syscall_resolve_num_arch() allocates, which a signal handler may not.
std::array<std::array<char, 28>, 512> names{};
thread_local Thread self = set_up;

const char* thread_name() {
  switch (self) {
    case loop:
      return "the main thread";
    case vcpu:
      return "a vCPU's thread";
    case timers:
      return "the timers' thread";
    default:
      return "the main thread, setting up,";
  }
}

// One line, made without the heap.
class Line {
 public:
  void add(std::string_view text) {
    const std::size_t size = std::min(text.size(), text_.size() - size_);
    std::memcpy(text_.data() + size_, text.data(), size);
    size_ += size;
  }
  void add_number(std::uint64_t number, int base) {
    std::array<char, 24> digits{};
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number, base).ptr;
    add({digits.data(), static_cast<std::size_t>(end - digits.data())});
  }
  void write() const {
    [[maybe_unused]] const auto n = ::write(STDERR_FILENO, text_.data(), size_);
  }

 private:
  std::array<char, 200> text_{};
  std::size_t size_ = 0;
};

std::atomic_flag dying;

void say_and_die(int signal, siginfo_t* info, void* context) {
  // Another thread's word has to be out before the end.
  while (dying.test_and_set()) asm volatile("pause");
  RawTerminal::give_back();
  Line line;
  line.add("vmm-reference: ");
  line.add(thread_name());
  line.add(" made the system call ");
  const auto number = static_cast<std::size_t>(info->si_syscall);
  if (number < names.size() && names[number][0] != '\0') {
    line.add(names[number].data());
  } else {
    line.add_number(number, 10);
  }
  if (info->si_syscall == SYS_ioctl) {
    line.add(" 0x");
    const auto& registers = static_cast<const ucontext_t*>(context)->uc_mcontext.gregs;
    line.add_number(static_cast<std::uint32_t>(registers[REG_RSI]), 16);
  }
  line.add(", which the sandbox forbids: it ends here\n");
  line.write();
  // Forbidden to all, and here the signal is blocked: the kernel lets it end us.
  ::syscall(SYS_execve, nullptr, nullptr, nullptr);
  ::_exit(128 + signal);
}

Result<void> catch_violations() {
  for (std::size_t number = 0; number < names.size(); ++number) {
    const std::unique_ptr<char, decltype(&std::free)> name(
        ::seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, static_cast<int>(number)), &std::free);
    if (name) ::strncpy(names[number].data(), name.get(), names[number].size() - 1);
  }
  struct sigaction action {};
  action.sa_sigaction = say_and_die;
  action.sa_flags = SA_SIGINFO;
  if (::sigaction(SIGSYS, &action, nullptr) != 0) return last_error("sigaction", SIGSYS);
  return vmm_base::success();
}

// --- filters
// ---------------------------------------------------------------------------------------

using Context = std::unique_ptr<void, decltype(&::seccomp_release)>;

// SCMP_A0() and its like are no C++.
scmp_arg_cmp argument(unsigned index, scmp_compare how, scmp_datum_t a, scmp_datum_t b = 0) {
  return {index, how, a, b};
}

int add(const Context& filter, const SystemCall& call) {
  const auto rule = [&](const scmp_arg_cmp& condition) {
    return ::seccomp_rule_add_exact_array(filter.get(), SCMP_ACT_ALLOW, call.number, 1, &condition);
  };
  // The second argument, of a call that is many in one.
  const auto any_of = [&](std::initializer_list<int> commands) {
    for (const int command : commands) {
      const int failed = rule(argument(1, SCMP_CMP_EQ, static_cast<scmp_datum_t>(command)));
      if (failed != 0) return failed;
    }
    return 0;
  };
  switch (call.only) {
    case Only::anything:
      return ::seccomp_rule_add_exact_array(filter.get(), SCMP_ACT_ALLOW, call.number, 0, nullptr);
    case Only::data:
      return rule(argument(2, SCMP_CMP_MASKED_EQ, PROT_EXEC));
    case Only::own_process:
      return rule(argument(0, SCMP_CMP_EQ, static_cast<scmp_datum_t>(::getpid())));
    case Only::own_files:
      return any_of({F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC});
    case Only::threads:
      return rule(argument(0, SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
    case Only::not_sigsys:
      return rule(argument(0, SCMP_CMP_NE, SIGSYS));
    case Only::own_rings:
      return any_of(
          {IORING_REGISTER_EVENTFD, IORING_REGISTER_RESTRICTIONS, IORING_REGISTER_ENABLE_RINGS});
  }
  return -EINVAL;
}

// What `who` is allowed; set_up: everything that anybody is.
Result<Program> make_program(Thread who, unsigned also) {
  // At rest, vCPUs are the main thread's.
  const bool may_save = (also & snapshots) != 0;
  const unsigned as = who != loop ? who : loop | also | (may_save ? unsigned{vcpu} : 0u);
  const auto allowed = [&](unsigned to) {
    return who == set_up ? to != snapshots || may_save : (to & as) != 0;
  };
  const Context filter(::seccomp_init(SCMP_ACT_TRAP), &::seccomp_release);
  if (!filter) return Error{"seccomp_init", ENOMEM};
  int failed = 0;
  const auto check = [&](int result) {
    if (failed == 0) failed = result;
  };
  check(::seccomp_attr_set(filter.get(), SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS));
  for (const SystemCall& call : system_calls) {
    if (allowed(call.who)) check(add(filter, call));
  }
  for (const Ioctl& ioctl : ioctls) {
    if (!allowed(ioctl.who)) continue;
    const auto request = argument(1, SCMP_CMP_EQ, ioctl.request);
    check(
        ::seccomp_rule_add_exact_array(filter.get(), SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, &request));
  }
  if (who == set_up) {
    // Its flags can't be seen; glibc takes clone() then.
    check(::seccomp_rule_add_exact(filter.get(), SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0));
  }
  if (failed != 0) return Error{"seccomp_rule_add", -failed, who};

  // libseccomp 2.5 gives the program to a file only.
  const vmm_base::UniqueFd file(::memfd_create("filter", MFD_CLOEXEC));
  if (!file) return last_error("memfd_create");
  if (const int result = ::seccomp_export_bpf(filter.get(), file.get()); result != 0) {
    return Error{"seccomp_export_bpf", -result, who};
  }
  Program program(static_cast<std::size_t>(::lseek(file.get(), 0, SEEK_END)) / sizeof(sock_filter));
  const std::size_t size = program.size() * sizeof(sock_filter);
  if (::pread(file.get(), program.data(), size, 0) != static_cast<ssize_t>(size)) {
    return last_error("read of a seccomp filter", who);
  }
  return program;
}

Result<void> load(const Program& program, unsigned flags) noexcept {
  const sock_fprog filter{static_cast<unsigned short>(program.size()),
                          const_cast<sock_filter*>(program.data())};
  if (::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter) != 0) {
    return last_error("seccomp", program.size());
  }
  return vmm_base::success();
}

// --- privileges
// ------------------------------------------------------------------------------------

Result<void> drop_privileges() {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return last_error("PR_SET_NO_NEW_PRIVS");
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> none{};
  if (::syscall(SYS_capset, &header, none.data()) != 0) return last_error("capset");
  // After capset, which may change it.
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return last_error("PR_SET_DUMPABLE");
  const rlimit no_core{0, 0};
  if (::setrlimit(RLIMIT_CORE, &no_core) != 0) return last_error("RLIMIT_CORE");
  return vmm_base::success();
}

}  // namespace

void note_inherited_files() {
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    inherited.push_back(std::stoi(entry.path().filename()));
  }
  // The folder was one of them, and is closed.
  std::erase_if(inherited, [](int fd) { return fd <= STDERR_FILENO || ::fcntl(fd, F_GETFD) < 0; });
}

Result<void> enter(unsigned also) {
  for (const int fd : inherited) ::close(fd);
  ::tzset();  // which gmtime_r() would do, by a file
  for (const Thread who : {set_up, loop, vcpu, timers}) {
    VMM_TRY(program, make_program(who, also));
    programs[who] = std::move(program);
  }
  VMM_CHECK(catch_violations());
  VMM_CHECK(drop_privileges());
  // Of all threads, should there be more than one.
  VMM_CHECK(load(programs[set_up], SECCOMP_FILTER_FLAG_TSYNC));
  entered = true;
  return vmm_base::success();
}

std::string why_not(const Error& error) {
  return "can't confine itself: " + error.message() +
         ": a kernel with CONFIG_SECCOMP_FILTER is needed, or --no-sandbox";
}

void confine(Thread who) noexcept {
  if (!entered) return;
  self = who;
  if (auto loaded = load(programs[who], 0); !loaded) {
    Line line;
    line.add("vmm-reference: ");
    line.add(thread_name());
    line.add(" can't be confined: seccomp, error ");
    line.add_number(static_cast<std::uint64_t>(loaded.error().code), 10);
    line.add("\n");
    line.write();
    ::_exit(1);
  }
}

}  // namespace vmm_reference::sandbox
