// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A VMM that serves two of a guest's hypercalls, and what the guest gets for them and for another.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "xen_abi/console.hpp"
#include "xen_abi/version.hpp"
#include "xen_hcall/console_op.hpp"
#include "xen_hcall/dispatcher.hpp"
#include "xen_hcall/version_op.hpp"

using vmm_base::Gva;
using vmm_base::XenVcpuId;

struct MyVmm {
  std::array<std::byte, 4096> ram{};

  std::byte* at(Gva gva, std::size_t size) {
    const bool is_ram = gva.value <= ram.size() && size <= ram.size() - gva.value;
    return is_ram ? ram.data() + gva.value : nullptr;
  }
  // What both handlers ask for,
  bool copy_from_guest(XenVcpuId, Gva from, std::span<std::byte> to) {
    const std::byte* bytes = at(from, to.size());
    if (bytes != nullptr) std::memcpy(to.data(), bytes, to.size());
    return bytes != nullptr;
  }
  bool copy_to_guest(XenVcpuId, Gva to, std::span<const std::byte> from) {
    std::byte* bytes = at(to, from.size());
    if (bytes != nullptr) std::memcpy(bytes, from.data(), from.size());
    return bytes != nullptr;
  }
  // and what the console does.
  void console_write(std::span<const std::byte> text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
  }
  std::size_t console_read(std::span<std::byte>) { return 0; }
};

int main() {
  MyVmm vmm;
  xen_hcall::VersionOp version(vmm, {.major = 4, .minor = 18});
  xen_hcall::ConsoleOp console(vmm);
  xen_hcall::Dispatcher dispatcher(version, console);

  // On each vCPU's thread, whenever KVM_RUN has returned with a hypercall:
  const auto rax = [&](const xen_abi::Hypercall& call) {
    const xen_abi::Answer answer = dispatcher(XenVcpuId{0}, call);
    if (!answer.host) std::puts(answer.host.error().message().c_str());
    return answer.guest.rax();
  };

  constexpr std::string_view text = "hello\n";
  std::ranges::copy(std::as_bytes(std::span(text)), vmm.ram.begin() + 0x100);
  const std::uint64_t written = rax({.number = xen_abi::hypercall::console_io,
                                     .params = {xen_abi::consoleio::write, text.size(), 0x100}});
  const std::uint64_t xen =
      rax({.number = xen_abi::hypercall::xen_version, .params = {xen_abi::xenver::version}});
  const std::uint64_t other = rax({.number = xen_abi::hypercall::grant_table_op});
  return written == 0 && xen == (4 << 16 | 18) && other == std::uint64_t(-38) ? 0 : 1;  // -ENOSYS
}
