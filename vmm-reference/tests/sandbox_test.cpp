// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Each test that enters the sandbox does so in a child of its own, for there is no way out.
#include "sandbox.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <future>
#include <iterator>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "domain_run.hpp"
#include "kvm_ioctls/double.hpp"
#include "timer_thread.hpp"
#include "vmm_base/unique_fd.hpp"

namespace vmm_reference {
namespace {

using testing::ExitedWithCode;
using testing::KilledBySignal;

struct Kind {
  sandbox::Thread who;
  const char* name;
};
constexpr Kind kinds[] = {{sandbox::set_up, "the main thread, setting up,"},
                          {sandbox::loop, "the main thread"},
                          {sandbox::vcpu, "a vCPU's thread"},
                          {sandbox::timers, "the timers' thread"}};

void enter() {
  if (auto entered = sandbox::enter(); !entered) {
    std::fprintf(stderr, "%s\n", sandbox::why_not(entered.error()).c_str());
    std::_Exit(99);
  }
}

// In the sandbox, on a thread of a kind. What it does without being ended is followed by status 0.
template <class Deed>
[[noreturn]] void inside(sandbox::Thread who, Deed&& deed) {
  enter();
  std::thread([&] {
    if (who != sandbox::set_up) sandbox::confine(who);
    deed();
    std::_Exit(0);
  }).join();
  std::_Exit(98);
}

std::string sentence(const Kind& kind, const std::string& call) {
  return "^vmm-reference: " + std::string(kind.name) + " made the system call " + call +
         ", which the sandbox forbids: it ends here\n$";
}

// With arguments that would make it fail in the kernel.
void make(long number) { ::syscall(number, -1L, -1L, -1L, -1L, -1L, -1L); }

// --- what is forbidden ---------------------------------------------------------------------------

TEST(Sandbox, NoThreadGetsAnythingOfTheHosts) {
  const std::pair<long, const char*> calls[] = {
      {SYS_open, "open"},
      {SYS_openat, "openat"},
      {SYS_openat2, "openat2"},
      {SYS_creat, "creat"},
      {SYS_unlinkat, "unlinkat"},
      {SYS_renameat2, "renameat2"},
      {SYS_newfstatat, "newfstatat"},
      {SYS_execve, "execve"},
      {SYS_fork, "fork"},
      {SYS_kill, "kill"},
      {SYS_ptrace, "ptrace"},
      {SYS_process_vm_writev, "process_vm_writev"},
      {SYS_pidfd_getfd, "pidfd_getfd"},
      {SYS_socket, "socket"},
      {SYS_connect, "connect"},
      {SYS_sendmsg, "sendmsg"},
      {SYS_bpf, "bpf"},
      {SYS_userfaultfd, "userfaultfd"},
      {SYS_perf_event_open, "perf_event_open"},
      {SYS_mount, "mount"},
      {SYS_unshare, "unshare"},
      {SYS_setuid, "setuid"},
      {SYS_capset, "capset"},
      {SYS_prctl, "prctl"},
      {SYS_memfd_create, "memfd_create"},
      {SYS_shmat, "shmat"},
  };
  for (const Kind& kind : kinds) {
    for (const auto& [number, name] : calls) {
      EXPECT_EXIT(inside(kind.who, [call = number] { make(call); }), KilledBySignal(SIGSYS),
                  sentence(kind, name));
    }
  }
}

TEST(Sandbox, NoThreadRunsCodeOfItsOwnOrGetsAtAnotherProcess) {
  for (const Kind& kind : kinds) {
    EXPECT_EXIT(inside(kind.who,
                       [] {
                         ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
                                -1, 0);
                       }),
                KilledBySignal(SIGSYS), sentence(kind, "mmap"));
    EXPECT_EXIT(inside(kind.who, [] { ::mprotect(nullptr, 4096, PROT_EXEC); }),
                KilledBySignal(SIGSYS), sentence(kind, "mprotect"));
    EXPECT_EXIT(inside(kind.who, [] { ::tgkill(1, 1, SIGTERM); }), KilledBySignal(SIGSYS),
                sentence(kind, "tgkill"));
    EXPECT_EXIT(inside(kind.who, [] { ::syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); }),
                KilledBySignal(SIGSYS), sentence(kind, "clone"));
    EXPECT_EXIT(inside(kind.who, [] { ::fcntl(0, F_SETOWN, 1); }), KilledBySignal(SIGSYS),
                sentence(kind, "fcntl"));
    EXPECT_EXIT(inside(kind.who, [] { ::signal(SIGSYS, SIG_IGN); }), KilledBySignal(SIGSYS),
                sentence(kind, "rt_sigaction"));
  }
}

// As a back end is made; a ring can do nothing but time out by then.
TEST(Sandbox, OnlyBeforeTheGuestRunsIsAnIoUringMade) {
  for (const Kind& kind : kinds) {
    const auto make_ring = [] { make(SYS_io_uring_setup); };
    if (kind.who == sandbox::set_up) {
      EXPECT_EXIT(inside(kind.who, make_ring), ExitedWithCode(0), "^$");
    } else {
      EXPECT_EXIT(inside(kind.who, make_ring), KilledBySignal(SIGSYS),
                  sentence(kind, "io_uring_setup"));
    }
    EXPECT_EXIT(
        inside(kind.who, [] { ::syscall(SYS_io_uring_register, -1, IORING_REGISTER_FILES, 0, 0); }),
        KilledBySignal(SIGSYS), sentence(kind, "io_uring_register"));
  }
}

TEST(Sandbox, OnlyForMetricsTheLoopWritesWhereItLikesInAFile) {
  const auto write = [](unsigned also) {
    if (!sandbox::enter(also)) std::_Exit(98);
    sandbox::confine(sandbox::loop);
    ::syscall(SYS_pwrite64, -1, nullptr, 0, 0);
    std::_Exit(0);
  };
  EXPECT_EXIT(write(sandbox::metrics), ExitedWithCode(0), "^$");
  EXPECT_EXIT(write(0), KilledBySignal(SIGSYS), sentence(kinds[1], "pwrite64"));
}

// The ioctls that each thread is for, and none of another's.
TEST(Sandbox, IoctlsAreAThreadsOwn) {
  const struct {
    unsigned long request;
    const char* hex;
    unsigned who;
  } ioctls[] = {{KVM_RUN, "0xae80", sandbox::vcpu},
                {KVM_SIGNAL_MSI, "0x4020aea5", sandbox::vcpu | sandbox::timers},
                {KVM_CREATE_VM, "0xae01", sandbox::set_up},
                {TCSETSF, "0x5404", sandbox::loop},
                {KVM_SET_NESTED_STATE, "0x4080aebf", 0}};
  for (const Kind& kind : kinds) {
    for (const auto& [request, hex, who] : ioctls) {
      const auto deed = [number = request] { ::syscall(SYS_ioctl, -1, number, 0); };
      const bool allowed =
          kind.who == sandbox::set_up ? request != KVM_SET_NESTED_STATE : (who & kind.who) != 0;
      if (allowed) {
        EXPECT_EXIT(inside(kind.who, deed), ExitedWithCode(0), "^$") << kind.name << hex;
      } else {
        EXPECT_EXIT(inside(kind.who, deed), KilledBySignal(SIGSYS),
                    sentence(kind, std::string("ioctl ") + hex));
      }
    }
  }
}

// --- the threads themselves ----------------------------------------------------------------------

void read_a_secret() { (void)::open("/etc/passwd", O_RDONLY | O_CLOEXEC); }

// The others don't end the program before it is said.
TEST(Sandbox, OfThreadsThatAreOutAtOnceOneIsToldOf) {
  const auto run = [] {
    enter();
    std::atomic<int> missing = 4;
    std::vector<std::thread> threads;
    for (int i = missing; i != 0; --i) {
      threads.emplace_back([&] {
        sandbox::confine(sandbox::vcpu);
        --missing;
        while (missing != 0) {
        }
        read_a_secret();
      });
    }
    for (auto& thread : threads) thread.join();
    std::_Exit(0);
  };
  for (int i = 0; i < 50; ++i) {
    EXPECT_EXIT(run(), KilledBySignal(SIGSYS), sentence(kinds[2], "openat"));
  }
}

TEST(Sandbox, ATimerThreadIsConfined) {
  struct Handler {
    vmm_base::Result<void> expire() {
      read_a_secret();
      return vmm_base::success();
    }
  };
  const auto run = [] {
    enter();
    Handler handler;
    const vmm_base::UniqueFd due(::eventfd(1, EFD_CLOEXEC));
    auto thread = TimerThread::start(handler, due.get());
    std::promise<void>().get_future().wait();
  };
  EXPECT_EXIT(run(), KilledBySignal(SIGSYS), sentence(kinds[3], "openat"));
}

struct SandboxRun : testing::Test {
  kvm_ioctls::KvmDouble kvm;
  kvm_ioctls::Vm vm = std::move(kvm.open().value().create_vm().value());
  std::vector<kvm_ioctls::Vcpu> vcpus = create();
  DomainRun run{1};

  std::vector<kvm_ioctls::Vcpu> create() {
    std::vector<kvm_ioctls::Vcpu> created;
    created.push_back(std::move(vm.create_vcpu({0}).value()));
    return created;
  }
  // Until `deed`, on a vCPU's thread, has returned.
  template <class Deed>
  void run_inside(Deed&& deed) {
    auto signal = kvm_ioctls::KickSignal::install();
    enter();
    VcpuThreads threads(vcpus, signal.value());
    const auto ran = run_vcpus(threads, run, [&](XenVcpuId, VcpuRunner&) { deed(); });
    std::_Exit(ran ? 0 : 97);
  }
};

TEST_F(SandboxRun, AVcpusThreadIsConfined) {
  EXPECT_EXIT(run_inside(read_a_secret), KilledBySignal(SIGSYS), sentence(kinds[2], "openat"));
}

TEST_F(SandboxRun, TheLoopIsConfinedOnceTheLastGuestRuns) {
  const auto make_a_machine = [&] {
    std::promise<void> done;
    boost::asio::post(run.loop, [&] {
      ::syscall(SYS_ioctl, -1, KVM_CREATE_VM, 0);
      done.set_value();
    });
    run_inside([&] { done.get_future().wait(); });
  };
  EXPECT_EXIT(make_a_machine(), ExitedWithCode(0), "");
  run.is_last = true;
  EXPECT_EXIT(make_a_machine(), KilledBySignal(SIGSYS), sentence(kinds[1], "ioctl 0xae01"));
}

// --- the process ---------------------------------------------------------------------------------

TEST(Sandbox, GivesUpPrivilegesAndForeignFiles) {
  int alive[2];
  int news[2];
  ASSERT_EQ(::pipe2(alive, O_CLOEXEC), 0);
  ASSERT_EQ(::pipe2(news, O_CLOEXEC), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(alive[1]);
    const int foreign = ::open("/etc/passwd", O_RDONLY);
    sandbox::note_inherited_files();
    // Ours by now.
    const int ours = ::dup(news[1]);
    const int waits = ::dup(alive[0]);
    enter();
    const char closed = ::fcntl(foreign, F_GETFD) < 0 && errno == EBADF ? 'y' : 'n';
    char byte = 0;
    if (::write(ours, &closed, 1) != 1 || ::read(waits, &byte, 1) != 0) std::_Exit(1);
    std::_Exit(0);
  }
  char closed = 0;
  ASSERT_EQ(::read(news[0], &closed, 1), 1);
  EXPECT_EQ(closed, 'y');
  const std::string folder = "/proc/" + std::to_string(child);
  std::ifstream file(folder + "/status");
  const std::string status{std::istreambuf_iterator<char>(file), {}};
  for (const char* line :
       {"CapInh:\t0000000000000000\n", "CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n",
        "CapAmb:\t0000000000000000\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n"}) {
    EXPECT_NE(status.find(line), std::string::npos) << line << status;
  }
  // What may not be dumped is root's, and so closed to others of its user.
  struct ::stat owner {};
  EXPECT_EQ(::stat((folder + "/mem").c_str(), &owner), 0);
  EXPECT_EQ(owner.st_uid, 0u);
  std::ifstream limits(folder + "/limits");
  const std::string text{std::istreambuf_iterator<char>(limits), {}};
  EXPECT_NE(text.find("Max core file size        0                    0 "), std::string::npos)
      << text;
  ::close(alive[1]);
  int ended = -1;
  ::waitpid(child, &ended, 0);
  EXPECT_EQ(ended, 0);
  for (const int fd : {alive[0], news[0], news[1]}) ::close(fd);
}

}  // namespace
}  // namespace vmm_reference
