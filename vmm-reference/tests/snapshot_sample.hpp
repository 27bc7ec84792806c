// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A snapshot with something in every part of it, and what is needed to change its bytes.
#pragma once

#include <zlib.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "snapshot_format.hpp"
#include "vmm_base/guest_address.hpp"

namespace vmm_reference {

using FileBytes = std::vector<std::byte>;

inline constexpr std::uint64_t sample_ram = 2 << 20;  // bytes
inline const std::array<std::byte, 2 * vmm_base::page_size>& sample_pages() {
  static const auto pages = [] {
    std::array<std::byte, 2 * vmm_base::page_size> filled{};
    for (std::size_t at = 0; at < filled.size(); ++at) filled[at] = std::byte(at * 7 + 1);
    return filled;
  }();
  return pages;
}

inline VcpuSnapshot sample_vcpu(std::uint64_t id) {
  VcpuSnapshot vcpu;
  vcpu.regs.rip = 0xffffffff81000000 + id;
  vcpu.sregs.cr3 = 0x1000;
  vcpu.xcrs.nr_xcrs = 1;
  vcpu.xcrs.xcrs[0].value = 1;
  vcpu.mp_state.mp_state = KVM_MP_STATE_HALTED;
  vcpu.tsc_khz = 2'000'000;
  vcpu.tsc = 123456789;
  vcpu.lapic.regs[0x20] = 1;
  vcpu.cpuid.resize(1);
  vcpu.cpuid[0].function = 1;
  vcpu.cpuid[0].eax = 2;
  vcpu.msrs = {{0xc0000080, 0, 0x500}, {0x174, 0, 16}};
  vcpu.xsave.resize(4096, std::byte{3});
  vcpu.nested.resize(128, std::byte{1});
  return vcpu;
}

inline Snapshot sample(Boot boot = Boot::pvh) {
  Snapshot snapshot;
  snapshot.boot = boot;
  snapshot.mode = TimerMode::userspace;
  snapshot.ram_size = sample_ram;
  snapshot.vcpus = {sample_vcpu(0), sample_vcpu(1)};
  snapshot.clock = {5'000'000'000, 1'700'000'000'000'000'000};
  for (std::uint32_t chip = 0; chip < 3; ++chip) snapshot.irqchips[chip].chip_id = chip;
  if (boot != Boot::native) {
    XenSnapshot& xen = snapshot.xen.emplace();
    xen.shared_info = 0x123;
    xen.pages = 500;
    xen.watchdogs[1] = 7'000'000'000;
    xen.params[xen_abi::hvm_param::count - 1] = 9;
    xen.grant_frame_count = 2;
    xen.grant_frames.resize(2);
    xen.grant_frames[0].gfn = 0x100;
    xen.grant_frames[1] = {1, 0xfe000, FileBytes(vmm_base::page_size, std::byte{0x5a})};
    xen.channels.resize(xen_abi::event_ports_64);
    xen.channels[1].kind = xen_evtchn::Kind::virq;
    xen.channels[4].kind = xen_evtchn::Kind::ipi;
    xen.channels[4].vcpu.value = 1;
    xen.vcpus.resize(2);
    xen.vcpus[0].vcpu_info = 0x123000;
    xen.vcpus[0].registered = true;
    xen.vcpus[0].upcall_vector = 0xf3;
    xen.vcpus[0].runstate = {0, 60, 10, 20, 25, 5};
    xen.vcpus[0].timers.port.value = 1;
    xen.vcpus[0].timers.deadline = xen_clock::guest_time(5'001'000'000);
  }
  PortsSnapshot& ports = snapshot.ports.emplace();
  ports.serial.input_size = 1;
  ports.serial.input[0] = 'x';
  ports.rtc.index = 4;
  const std::span<const std::byte> pages(sample_pages());
  snapshot.ram = {
      {vmm_base::Gpa{0}, sample_ram, {{0, pages}, {0x10000, pages.first(vmm_base::page_size)}}}};
  return snapshot;
}

inline FileBytes bytes_of(const Snapshot& snapshot) {
  FileBytes bytes;
  const auto written = write_snapshot(snapshot, [&](std::span<const std::byte> piece) {
    bytes.insert(bytes.end(), piece.begin(), piece.end());
    return vmm_base::success();
  });
  return written ? bytes : FileBytes{};
}

// Where each section begins, by the sizes that they say; `bytes` may be anything.
inline std::vector<std::size_t> sections_of(const FileBytes& bytes) {
  std::vector<std::size_t> starts;
  for (std::size_t at = 16; at + 32 <= bytes.size();) {
    starts.push_back(at);
    std::uint64_t size = 0;
    std::memcpy(&size, bytes.data() + at + 8, sizeof(size));
    if (size > bytes.size() - at - 32) break;
    at += 32 + (size + 7) / 8 * 8;
  }
  return starts;
}

// Makes all checksums right, so that what is wrong is found by what it says.
inline void seal(FileBytes& bytes) {
  const auto put_crc = [&](std::size_t from, std::size_t size, std::size_t at) {
    const auto crc = static_cast<std::uint32_t>(
        ::crc32_z(0, reinterpret_cast<const unsigned char*>(bytes.data()) + from, size));
    if (at + 4 <= bytes.size()) std::memcpy(bytes.data() + at, &crc, sizeof(crc));
  };
  if (bytes.size() >= 16) put_crc(0, 12, 12);
  for (const std::size_t at : sections_of(bytes)) {
    put_crc(at, 20, at + 20);
    std::uint64_t size = 0;
    std::memcpy(&size, bytes.data() + at + 8, sizeof(size));
    if (size <= bytes.size() - at - 32) put_crc(at + 24, size, at + 24 + (size + 7) / 8 * 8);
  }
}

}  // namespace vmm_reference
