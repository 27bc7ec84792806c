// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What a KvmDouble knows.
#pragma once

#include <sys/mman.h>
#include <sys/types.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kvm_ioctls/double.hpp"
#include "vmm_base/unique_fd.hpp"

namespace kvm_ioctls::double_detail {

using Bytes = std::vector<std::byte>;

inline constexpr std::size_t page_size = 4096;
// kvm_run, the data of port I/O, the ring of coalesced writes.
inline constexpr std::size_t run_size = 3 * page_size;
inline constexpr std::size_t coalesced_offset = KVM_COALESCED_MMIO_PAGE_OFFSET * page_size;
inline constexpr std::size_t dirty_ring_offset = KVM_DIRTY_LOG_PAGE_OFFSET * page_size;

// The double's own view of a vCPU's file.
class Mapping {
 public:
  Mapping() noexcept = default;
  Mapping(std::byte* start, std::size_t size) noexcept : start_(start), size_(size) {}
  Mapping(Mapping&& other) noexcept
      : start_(std::exchange(other.start_, nullptr)), size_(other.size_) {}
  Mapping& operator=(Mapping&& other) noexcept {
    std::swap(start_, other.start_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Mapping() {
    if (start_ != nullptr) ::munmap(start_, size_);
  }
  [[nodiscard]] std::byte* start() const noexcept { return start_; }

 private:
  std::byte* start_ = nullptr;
  std::size_t size_ = 0;
};

// What the vCPUs of an id do.
struct Script {
  vmm_base::UniqueFd wake{};  // an eventfd: there are new steps, or it is all over
  std::deque<guest::Step> steps{};
  bool stays_at_end = false;
  bool refuses_mapping = false;
  unsigned staying = 0;  // threads inside KVM_RUN
  std::vector<Answer> answers{};
};

struct Slot {
  std::uint64_t gpa;
  std::uint64_t size;  // bytes
  std::uint64_t host;
};

// A memory file that stands for an object of the kernel's.
struct Fake {
  enum class Kind : std::uint8_t { system, vm, vcpu, device, statistics, guest_memory };
  Kind kind{};
  std::uint32_t id = 0;
  vmm_base::UniqueFd file{};
  dev_t device = 0;
  ino_t inode = 0;

  // What was set: by the request that sets it, and what that distinguishes.
  std::map<std::pair<unsigned long, std::uint64_t>, Bytes> set{};
  std::map<std::uint64_t, std::uint64_t> numbers{};  // MSRs; and registers, whose ids are larger
  std::uint32_t tsc_khz = 1'000'000;

  // Of a VM.
  std::map<std::uint32_t, Fake*> vcpus{};
  std::map<std::uint32_t, Slot> slots{};
  bool irqchip = false;
  std::size_t dirty_ring = 0;  // bytes; of a vCPU, too

  // Of a vCPU.
  Mapping mapping{};
  Script* script = nullptr;
  bool exited = false;  // and the VMM hasn't come back yet
  std::uint32_t next_dirty = 0;
  std::optional<std::uint64_t> signal_mask{};

  // The rest of the mapping follows it.
  [[nodiscard]] kvm_run& page() const noexcept {
    return *reinterpret_cast<kvm_run*>(mapping.start());
  }
  [[nodiscard]] std::string name() const;
};

struct Failure {
  std::optional<unsigned long> request;
  std::size_t left;  // calls, that which fails included
  int error;
};

// With `mutex` held, but for what never changes.
struct State : std::enable_shared_from_this<State> {
  std::mutex mutex{};
  std::condition_variable changed{};
  std::vector<std::unique_ptr<Fake>> fakes{};  // the first is the system
  std::map<std::uint32_t, Script> scripts{};   // by KVM id
  std::vector<Call> calls{};
  std::map<unsigned, int> caps{};
  std::map<unsigned long, KvmDouble::Handler> handlers{};
  std::vector<Failure> failures{};
  std::vector<kvm_cpuid_entry2> supported_cpuid{};
  std::vector<std::pair<std::string, std::uint64_t>> stats{};
  std::uint32_t vms = 0;
  const Fake* vm_with_memory = nullptr;
  bool over = false;

  Script& script(std::uint32_t id);
  // A new fake of `size` bytes; null, with errno set, if there can't be one.
  Fake* make(Fake::Kind kind, std::uint32_t id, std::size_t size);
};

using Lock = std::unique_lock<std::mutex>;

// A new fd of the fake's for the VMM, or -errno.
int hand_out(const Fake& fake, bool writable = true);

// An ioctl of a fake's: what it returns, or -errno.
int answer(State& state, Fake& fake, unsigned long request, std::uint64_t word);

// KVM_RUN of a vCPU's; gives up the lock meanwhile.
int run(State& state, Fake& vcpu, Lock& lock);

// "?" for one that isn't known.
const char* name_of(unsigned long request);
// What the double does by itself, but for KVM_RUN.
int answer_as_usual(State& state, Fake& fake, unsigned long request, std::uint64_t word);

}  // namespace kvm_ioctls::double_detail
