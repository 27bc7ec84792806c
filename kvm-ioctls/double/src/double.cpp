// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "kvm_ioctls/double.hpp"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <shared_mutex>
#include <sstream>
#include <stdexcept>

#include "state.hpp"

namespace kvm_ioctls {

using double_detail::Fake;
using double_detail::Lock;
using double_detail::Script;
using double_detail::State;

namespace double_detail {

namespace {

// Every fake of every double, by the file that it is.
struct Registry {
  struct Entry {
    std::shared_ptr<State> state;
    Fake* fake;
  };
  using Key = std::pair<dev_t, ino_t>;
  std::shared_mutex mutex{};
  std::map<Key, Entry> fakes{};
};
// Never destroyed, as ioctl(2) may be called to the very end.
Registry& registry() {
  static auto& all = *new Registry;
  return all;
}

// Whose fd it is, if a double's.
Registry::Entry find(int fd) {
  Registry& all = registry();
  struct stat status {};
  std::shared_lock lock(all.mutex);
  if (all.fakes.empty() || ::fstat(fd, &status) != 0) return {};
  const auto found = all.fakes.find({status.st_dev, status.st_ino});
  return found == all.fakes.end() ? Registry::Entry{} : found->second;
}

}  // namespace

std::string Fake::name() const {
  switch (kind) {
    case Kind::system:
      return "the system";
    case Kind::vm:
      return "VM " + std::to_string(id);
    case Kind::vcpu:
      return "vCPU " + std::to_string(id);
    case Kind::device:
      return "a device";
    case Kind::statistics:
      return "statistics";
    case Kind::guest_memory:
      return "guest memory";
  }
  return "?";
}

int hand_out(const Fake& fake, bool writable) {
  if (writable) {
    const int fd = ::fcntl(fake.file.get(), F_DUPFD_CLOEXEC, 0);
    return fd < 0 ? -errno : fd;
  }
  const std::string path = "/proc/self/fd/" + std::to_string(fake.file.get());
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  return fd < 0 ? -errno : fd;
}

}  // namespace double_detail

// --- VcpuDouble ----------------------------------------------------------------------------------

namespace {

// The vCPU of a script that was created last.
Fake* newest(State& state, const Script* script) {
  for (auto at = state.fakes.rbegin(); at != state.fakes.rend(); ++at) {
    if ((*at)->script == script) return at->get();
  }
  return nullptr;
}

}  // namespace

void VcpuDouble::add(guest::Step step) const {
  const Lock lock(state_->mutex);
  script_->steps.push_back(std::move(step));
  (void)::eventfd_write(script_->wake.get(), 1);
}

const VcpuDouble& VcpuDouble::then_stays() const {
  const Lock lock(state_->mutex);
  script_->stays_at_end = true;
  return *this;
}

std::vector<Answer> VcpuDouble::answers() const {
  const Lock lock(state_->mutex);
  return script_->answers;
}

std::size_t VcpuDouble::steps_left() const {
  const Lock lock(state_->mutex);
  return script_->steps.size();
}

void VcpuDouble::await_stay() const {
  Lock lock(state_->mutex);
  state_->changed.wait(lock, [this] { return script_->staying != 0; });
}

void VcpuDouble::refuse_mapping() const {
  const Lock lock(state_->mutex);
  script_->refuses_mapping = true;
}

bool VcpuDouble::dirties(std::uint32_t slot, std::uint64_t page) const {
  const Lock lock(state_->mutex);
  Fake* vcpu = newest(*state_, script_);
  if (vcpu == nullptr || vcpu->dirty_ring == 0) return false;
  auto* ring =
      reinterpret_cast<kvm_dirty_gfn*>(vcpu->mapping.start() + double_detail::dirty_ring_offset);
  const std::size_t entries = vcpu->dirty_ring / sizeof(kvm_dirty_gfn);
  kvm_dirty_gfn& entry = ring[vcpu->next_dirty % entries];
  std::atomic_ref flags(entry.flags);
  if (flags.load(std::memory_order_acquire) != 0) return false;
  entry.slot = slot;
  entry.offset = page;
  flags.store(KVM_DIRTY_GFN_F_DIRTY, std::memory_order_release);
  ++vcpu->next_dirty;
  return true;
}

bool VcpuDouble::coalesces(std::uint64_t address, std::span<const std::byte> data, bool pio) const {
  const Lock lock(state_->mutex);
  Fake* vcpu = newest(*state_, script_);
  if (vcpu == nullptr) return false;
  struct Ring {
    std::uint32_t first;
    std::uint32_t last;
  };
  std::byte* start = vcpu->mapping.start() + double_detail::coalesced_offset;
  auto& ring = *reinterpret_cast<Ring*>(start);
  auto* entries = reinterpret_cast<kvm_coalesced_mmio*>(start + sizeof(Ring));
  constexpr std::uint32_t size =
      (double_detail::page_size - sizeof(Ring)) / sizeof(kvm_coalesced_mmio);
  std::atomic_ref last(ring.last);
  const std::uint32_t at = last.load(std::memory_order_relaxed);
  const std::uint32_t next = (at + 1) % size;
  if (next == std::atomic_ref(ring.first).load(std::memory_order_acquire)) return false;
  kvm_coalesced_mmio& entry = entries[at];
  const std::size_t length = std::min(data.size(), sizeof(entry.data));
  entry.phys_addr = address;
  entry.len = static_cast<std::uint32_t>(length);
  entry.pio = pio ? 1 : 0;
  std::memcpy(entry.data, data.data(), length);
  last.store(next, std::memory_order_release);
  return true;
}

// --- KvmDouble -----------------------------------------------------------------------------------

namespace double_detail {

Script& State::script(std::uint32_t id) {
  Script& script = scripts[id];
  if (!script.wake) script.wake = vmm_base::UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  return script;
}

Fake* State::make(Fake::Kind kind, std::uint32_t id, std::size_t size) {
  auto fake = std::make_unique<Fake>();
  fake->kind = kind;
  fake->id = id;
  fake->file =
      vmm_base::UniqueFd(::memfd_create(("KvmDouble: " + fake->name()).c_str(), MFD_CLOEXEC));
  struct stat status {};
  if (!fake->file || ::ftruncate(fake->file.get(), static_cast<off_t>(size)) != 0 ||
      ::fstat(fake->file.get(), &status) != 0) {
    return nullptr;
  }
  fake->device = status.st_dev;
  fake->inode = status.st_ino;
  if (kind != Fake::Kind::statistics && kind != Fake::Kind::guest_memory) {
    Registry& all = registry();
    const std::unique_lock lock(all.mutex);
    all.fakes[{fake->device, fake->inode}] = {shared_from_this(), fake.get()};
  }
  return fakes.emplace_back(std::move(fake)).get();
}

}  // namespace double_detail

KvmDouble::KvmDouble() : state_(std::make_shared<State>()) {
  const auto leaf = [](std::uint32_t function, std::uint32_t eax) {
    kvm_cpuid_entry2 entry{};
    entry.function = function;
    entry.eax = eax;
    return entry;
  };
  state_->supported_cpuid = {leaf(0, 1), leaf(1, 0), leaf(0x80000000, 0x80000001),
                             leaf(0x80000001, 0)};
  if (state_->make(Fake::Kind::system, 0, 0) == nullptr) {
    throw std::runtime_error("KvmDouble: no memory file can be had");
  }
}

KvmDouble::~KvmDouble() {
  {
    auto& all = double_detail::registry();
    const std::unique_lock lock(all.mutex);
    std::erase_if(all.fakes, [this](const auto& entry) { return entry.second.state == state_; });
  }
  const Lock lock(state_->mutex);
  state_->over = true;
  for (auto& [id, script] : state_->scripts) (void)::eventfd_write(script.wake.get(), 1);
}

std::string KvmDouble::path() const {
  const Lock lock(state_->mutex);
  return "/proc/self/fd/" + std::to_string(state_->fakes.front()->file.get());
}

VcpuDouble KvmDouble::vcpu(std::uint32_t id) const {
  const Lock lock(state_->mutex);
  return {state_, &state_->script(id)};
}

void KvmDouble::cap(unsigned capability, int value) const {
  const Lock lock(state_->mutex);
  state_->caps[capability] = value;
}
void KvmDouble::supported_cpuid(std::vector<kvm_cpuid_entry2> leaves) const {
  const Lock lock(state_->mutex);
  state_->supported_cpuid = std::move(leaves);
}
void KvmDouble::stats(std::vector<std::pair<std::string, std::uint64_t>> counters) const {
  const Lock lock(state_->mutex);
  state_->stats = std::move(counters);
}
void KvmDouble::on(unsigned long request, Handler handler) const {
  const Lock lock(state_->mutex);
  state_->handlers[request] = std::move(handler);
}
void KvmDouble::fail(unsigned long request, int error, std::size_t nth) const {
  const Lock lock(state_->mutex);
  state_->failures.push_back({request, nth, error});
}
void KvmDouble::fail_call(std::size_t nth, int error) const {
  const Lock lock(state_->mutex);
  const std::size_t made = state_->calls.size();
  if (nth > made) state_->failures.push_back({std::nullopt, nth - made, error});
}

std::vector<Call> KvmDouble::calls() const {
  const Lock lock(state_->mutex);
  return state_->calls;
}
std::vector<Call> KvmDouble::calls(unsigned long request) const {
  const Lock lock(state_->mutex);
  std::vector<Call> found;
  std::copy_if(state_->calls.begin(), state_->calls.end(), std::back_inserter(found),
               [&](const Call& call) { return call.request == request; });
  return found;
}
std::vector<std::string> KvmDouble::names() const {
  const Lock lock(state_->mutex);
  std::vector<std::string> names;
  for (const Call& call : state_->calls) names.emplace_back(call.name);
  return names;
}

std::byte* KvmDouble::memory(std::uint64_t gpa, std::size_t size) const {
  const Lock lock(state_->mutex);
  if (state_->vm_with_memory == nullptr) return nullptr;
  for (const auto& [number, slot] : state_->vm_with_memory->slots) {
    if (gpa >= slot.gpa && gpa - slot.gpa < slot.size && size <= slot.size - (gpa - slot.gpa)) {
      // NOLINTNEXTLINE(performance-no-int-to-ptr): as the VMM said it
      return reinterpret_cast<std::byte*>(slot.host) + (gpa - slot.gpa);
    }
  }
  return nullptr;
}

std::vector<std::string> KvmDouble::leaks() const {
  const Lock lock(state_->mutex);
  const auto fake_of = [this](dev_t device, ino_t inode) -> const Fake* {
    for (const auto& fake : state_->fakes) {
      if (fake->device == device && fake->inode == inode) return fake.get();
    }
    return nullptr;
  };
  std::vector<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    const int fd = std::stoi(entry.path().filename().string());
    struct stat status {};
    if (::fstat(fd, &status) != 0) continue;
    const Fake* fake = fake_of(status.st_dev, status.st_ino);
    if (fake == nullptr || fake->file.get() == fd) continue;
    found.push_back("fd " + std::to_string(fd) + ": " + fake->name());
  }
  // 7f0…-7f0… rw-s 00000000 00:01 1234 /memfd:…
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    std::istringstream words(line);
    std::uintptr_t start = 0;
    std::string skipped;
    char colon = 0;
    unsigned major_number = 0;
    unsigned minor_number = 0;
    ino_t inode = 0;
    words >> std::hex >> start >> skipped >> skipped >> skipped >> major_number >> colon >>
        minor_number >> std::dec >> inode;
    if (!words) continue;
    const Fake* fake = fake_of(makedev(major_number, minor_number), inode);
    if (fake == nullptr) continue;
    if (start == reinterpret_cast<std::uintptr_t>(fake->mapping.start())) continue;
    found.push_back("mapping: " + fake->name());
  }
  return found;
}

}  // namespace kvm_ioctls

// In place of libc's. In this file, so that whoever makes a KvmDouble has it, too.
extern "C" int ioctl(int fd, unsigned long request, ...) noexcept {
  va_list arguments;
  va_start(arguments, request);
  const auto word = va_arg(arguments, unsigned long);
  va_end(arguments);
  if (_IOC_TYPE(request) == KVMIO) {
    const int before = errno;
    const auto [state, fake] = kvm_ioctls::double_detail::find(fd);
    if (fake != nullptr) {
      const int result = kvm_ioctls::double_detail::answer(*state, *fake, request, word);
      errno = result < 0 ? -result : before;
      return result < 0 ? -1 : result;
    }
    errno = before;
  }
  return static_cast<int>(::syscall(SYS_ioctl, fd, request, word));
}
