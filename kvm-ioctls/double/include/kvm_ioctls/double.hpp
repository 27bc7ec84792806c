// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A KVM of the test's own, for unit tests of a VMM where there is no /dev/kvm: scripted vCPUs, a
// record of every call, and failures on demand. The real Kvm, Vm and Vcpu run over it unchanged, on
// as many threads as the VMM has, and so does code with ioctl(2)s of its own.
//
//   KvmDouble kvm;
//   kvm.vcpu(0).runs(guest::in(0x60), guest::halt());
//   run_my_vmm(kvm.path());
//   EXPECT_EQ(kvm.vcpu(0).answers().at(0).value, 0x1cu);  // what the guest's IN got
//
// How: in a program that links kvm_ioctls::double, ioctl(2) is this library's. KVM's ioctls of an
// fd that a KvmDouble made, or of a duplicate of it, are answered here; all others go to the
// kernel. The fds are memory files of the right layout, so that mmap, read, dup and close are the
// kernel's; they are known by the file, so that a number may be used anew. In such a program ioctl
// isn't for signal handlers.
//
// It is no emulator: it remembers what was set and returns that, but judges little. What it takes
// for granted, KvmDouble::on() can refuse.
#pragma once

#include <algorithm>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kvm_ioctls/double_guest.hpp"
#include "kvm_ioctls/kvm.hpp"
#include "kvm_ioctls/uapi.hpp"
#include "vmm_base/result.hpp"

namespace kvm_ioctls {

namespace double_detail {
struct State;
struct Script;
}  // namespace double_detail

// Whose ioctl it was.
enum class Role : std::uint8_t { system, vm, vcpu, device };

// One ioctl that the VMM made.
struct Call {
  static constexpr int under_way = INT_MIN;  // its result, until it returns

  unsigned long request = 0;
  const char* name = "";  // "KVM_SET_REGS"; "?" for a number that isn't known here
  Role role{};
  std::uint32_t id = 0;    // a vCPU's KVM id; a VM's number, from 0; a device's KVM_DEV_TYPE_*
  std::uint64_t word = 0;  // the argument itself: a number, or an address of the VMM's
  int result = under_way;  // else not negative, or -errno
  // What the argument points to as the call came, with the entries that follow it, and as it
  // returned. Empty for a number.
  std::vector<std::byte> in{};
  std::vector<std::byte> out{};

  // The argument as the VMM passed it; as it got it back. Zeros where there are fewer bytes.
  template <class T>
  [[nodiscard]] T argument() const {
    return as<T>(in);
  }
  template <class T>
  [[nodiscard]] T answer() const {
    return as<T>(out);
  }
  // What follows a header that counts: entries<kvm_cpuid_entry2>() of KVM_SET_CPUID2.
  template <class T>
  [[nodiscard]] std::vector<T> entries() const {
    const std::size_t header = std::min<std::size_t>(_IOC_SIZE(request), in.size());
    std::vector<T> found((in.size() - header) / sizeof(T));
    if (!found.empty()) std::memcpy(found.data(), in.data() + header, found.size() * sizeof(T));
    return found;
  }

 private:
  template <class T>
  static T as(const std::vector<std::byte>& bytes) {
    T value{};
    std::memcpy(&value, bytes.data(), std::min(bytes.size(), sizeof(T)));
    return value;
  }
};

// What the VMM made of an exit, as the guest finds it with the next KVM_RUN.
struct Answer {
  std::uint32_t reason = 0;  // KVM_EXIT_*
  // Of an IN or an MMIO read the data, up to 8 bytes of it; of a hypercall its result; of an MSR
  // its value. The same of the others is what they had sent.
  std::uint64_t value = 0;
  bool fault = false;             // the MSR access raises #GP
  std::vector<std::byte> data{};  // of port I/O and MMIO, all of it
  kvm_run page{};                 // all the rest
};

// The vCPUs of a KVM id, of every VM that the double makes: one runs as a rule. Any thread may use
// it, as long as the KvmDouble is there.
class VcpuDouble {
 public:
  // What the guest does next; may be called at any time. When all is done, KVM_RUN fails with
  // ENODATA, so that a run loop that should have ended doesn't run for ever.
  template <class... Steps>
  const VcpuDouble& runs(Steps&&... steps) const {
    (add(guest::Step(std::forward<Steps>(steps))), ...);
    return *this;
  }
  // Instead, the guest stays inside, until it is kicked or runs() gives it more to do.
  const VcpuDouble& then_stays() const;

  // What became of each exit from which KVM_RUN was called again, the oldest first. An interrupted
  // KVM_RUN isn't an exit.
  [[nodiscard]] std::vector<Answer> answers() const;
  // Steps that are still to come.
  [[nodiscard]] std::size_t steps_left() const;
  // Waits until KVM_RUN was called that stays inside.
  void await_stay() const;

  // mmap of its kvm_run fails with EACCES.
  void refuse_mapping() const;
  // Puts an entry into the vCPU's dirty ring, after KVM_CAP_DIRTY_LOG_RING; false if that is full,
  // or there is none yet.
  bool dirties(std::uint32_t slot, std::uint64_t page) const;
  // Puts a write into the ring of KVM_CAP_COALESCED_MMIO, here one of each vCPU's; false as above.
  bool coalesces(std::uint64_t address, std::span<const std::byte> data, bool pio = false) const;

 private:
  friend class KvmDouble;
  VcpuDouble(std::shared_ptr<double_detail::State> state, double_detail::Script* script) noexcept
      : state_(std::move(state)), script_(script) {}
  void add(guest::Step step) const;

  std::shared_ptr<double_detail::State> state_;
  double_detail::Script* script_;  // state_'s
};

// Any thread may use it. The VMM's threads must be out of their calls when it is destroyed; what
// the VMM holds then are files that know no ioctl.
class KvmDouble {
 public:
  KvmDouble();
  KvmDouble(const KvmDouble&) = delete;
  KvmDouble& operator=(const KvmDouble&) = delete;
  ~KvmDouble();

  // In the place of /dev/kvm.
  [[nodiscard]] std::string path() const;
  [[nodiscard]] vmm_base::Result<Kvm> open() const { return Kvm::open(path().c_str()); }

  // The vCPU of a KVM id; it needn't have been created yet.
  [[nodiscard]] VcpuDouble vcpu(std::uint32_t id) const;

  // --- how it answers ---

  // KVM_CHECK_EXTENSION of the system and of VMs. Those that nobody says are a recent Linux's, with
  // all of Xen and without nested guests, Hyper-V or private memory.
  void cap(unsigned capability, int value) const;
  // KVM_GET_SUPPORTED_CPUID's leaves; else leaves 0, 1, 0x80000000 and 0x80000001, nearly empty.
  void supported_cpuid(std::vector<kvm_cpuid_entry2> leaves) const;
  // The counters of every KVM_GET_STATS_FD to come.
  void stats(std::vector<std::pair<std::string, std::uint64_t>> counters) const;

  // Answers a request from now on: returns what the ioctl does, or -errno, or `as_usual` to leave
  // the rest to the double. Called on the VMM's thread. Else an ioctl that sets, or tells, is 0;
  // one that gets returns what was set last on that fd, or zeros. Where the guest has no memory of
  // its own page tables, KVM_TRANSLATE is the identity. A number that isn't known is ENOTTY.
  static constexpr int as_usual = INT_MIN;
  using Handler = std::function<int(const Call&)>;
  void on(unsigned long request, Handler handler) const;
  // The same for one whose argument is a T: the VMM's own, to read and to fill.
  template <class T, class F>
  void on(unsigned long request, F handler) const {
    on(request, [handler = std::move(handler)](const Call& call) {
      return handler(*reinterpret_cast<T*>(call.word));  // NOLINT(performance-no-int-to-ptr)
    });
  }

  // Fails the nth call of a request from now, 1 being the next; or the nth of all ever made. It has
  // no effect then but the errno.
  void fail(unsigned long request, int error, std::size_t nth = 1) const;
  void fail_call(std::size_t nth, int error) const;

  // --- what the VMM did ---

  // All calls in the order in which they came, or those of a request; failed ones, too.
  [[nodiscard]] std::vector<Call> calls() const;
  [[nodiscard]] std::vector<Call> calls(unsigned long request) const;
  [[nodiscard]] std::size_t count(unsigned long request) const { return calls(request).size(); }
  [[nodiscard]] std::vector<std::string> names() const;

  // `size` bytes of guest memory by the memslots that there are now, of the VM that set one last;
  // null where there are none.
  [[nodiscard]] std::byte* memory(std::uint64_t gpa, std::size_t size) const;

  // The double's fds that this process has open besides its own, and mappings of them: "fd 7: vCPU
  // 0", "mapping: vCPU 0".
  [[nodiscard]] std::vector<std::string> leaks() const;

 private:
  std::shared_ptr<double_detail::State> state_;
};

}  // namespace kvm_ioctls
