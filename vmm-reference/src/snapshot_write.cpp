// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <algorithm>
#include <array>
#include <string_view>

#include "snapshot_format.hpp"
#include "snapshot_wire.hpp"
#include "vmm_base/guest_address.hpp"

namespace vmm_reference {

using vmm_base::page_size;
using vmm_base::Result;

namespace {

using namespace snapshot_wire;

class Writer {
 public:
  explicit Writer(const ByteSink& sink) : sink_(sink) { buffer_.reserve(buffered); }

  void head() {
    Head head;
    head.crc = head_crc(head);
    put(bytes_of(head));
  }
  void section(std::string_view name, std::size_t index, std::span<const Bytes> pieces) {
    SectionHead head;
    std::copy(name.begin(), name.end(), head.name.begin());
    head.index = static_cast<std::uint32_t>(index);
    for (const Bytes piece : pieces) head.size += piece.size();
    head.crc = head_crc(head);
    put(bytes_of(head));
    SectionEnd end;
    for (const Bytes piece : pieces) {
      put(piece);
      end.crc = crc_of(piece, end.crc);
    }
    constexpr std::array<std::byte, 8> zeros{};
    put(Bytes(zeros).first((8 - head.size % 8) % 8));
    put(bytes_of(end));
    ++sections_;
  }
  void section(std::string_view name, std::size_t index, Bytes content) {
    section(name, index, std::span(&content, 1));
  }
  Result<void> end() {
    section("END ", 0, bytes_of(std::uint64_t{sections_}));
    flush();
    return result_;
  }

 private:
  static constexpr std::size_t buffered = 64 << 10;

  void put(Bytes bytes) {
    if (bytes.size() >= buffered) {
      flush();
      if (result_) result_ = sink_(bytes);
      return;
    }
    if (buffer_.size() + bytes.size() > buffered) flush();
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  }
  void flush() {
    if (result_ && !buffer_.empty()) result_ = sink_(buffer_);
    buffer_.clear();
  }

  const ByteSink& sink_;
  std::vector<std::byte> buffer_;
  std::uint64_t sections_ = 0;
  Result<void> result_ = vmm_base::success();
};

void write_vcpu(Writer& to, std::size_t id, const VcpuSnapshot& vcpu) {
  to.section("CPU ", id,
             bytes_of(Cpu{vcpu.regs, vcpu.sregs, vcpu.debugregs, vcpu.xcrs, vcpu.events,
                          vcpu.mp_state, vcpu.tsc_khz, vcpu.tsc}));
  to.section("CPID", id, bytes_of(vcpu.cpuid));
  to.section("MSRS", id, bytes_of(vcpu.msrs));
  to.section("XSAV", id, vcpu.xsave);
  to.section("APIC", id, std::as_bytes(std::span(vcpu.lapic.regs)));
  to.section("NEST", id, vcpu.nested);
}

void write_grants(Writer& to, const XenSnapshot& xen) {
  const Grants head{xen.grant_frame_count, static_cast<std::uint32_t>(xen.grant_frames.size())};
  std::vector<Grant> grants;
  std::vector<Bytes> pieces(2);
  for (const GrantFrameSnapshot& frame : xen.grant_frames) {
    grants.push_back({frame.index, frame.page.empty() ? 0u : 1u, frame.gfn});
    pieces.emplace_back(frame.page);
  }
  pieces[0] = bytes_of(head);
  pieces[1] = bytes_of(grants);
  to.section("GRNT", 0, pieces);
}

void write_xen(Writer& to, const XenSnapshot& xen) {
  Xen domain{.shared_info = xen.shared_info.value_or(nowhere),
             .pages = xen.pages,
             .watchdogs = {},
             .end_reason = xen.end_reason.value_or(0),
             .has_end_reason = xen.end_reason ? 1u : 0u,
             .upcall_vector = xen.upcall_vector,
             .runstate_update_flag = xen.runstate_update_flag ? 1u : 0u,
             .params = xen.params};
  for (std::size_t at = 0; at < domain.watchdogs.size(); ++at) {
    domain.watchdogs[at] = xen.watchdogs[at].value_or(-1);
  }
  to.section("XEN ", 0, bytes_of(domain));
  write_grants(to, xen);
  std::vector<Port> open;
  for (std::uint32_t port = 0; port < xen.channels.size(); ++port) {
    const xen_evtchn::Channel& channel = xen.channels[port];
    if (channel.kind == xen_evtchn::Kind::closed) continue;
    open.push_back({port, static_cast<std::uint32_t>(channel.kind), channel.vcpu.value,
                    channel.remote_dom, channel.remote_port.value, channel.virq});
  }
  to.section("EVTC", 0, bytes_of(open));
  for (std::size_t id = 0; id < xen.vcpus.size(); ++id) {
    const XenVcpuSnapshot& vcpu = xen.vcpus[id];
    using Runstate = std::array<std::uint64_t, 6>;
    to.section("XCPU", id,
               bytes_of(XenCpu{vcpu.vcpu_info, vcpu.time_area, vcpu.runstate_area,
                               vcpu.runstate.value_or(Runstate{}), vcpu.runstate ? 1u : 0u,
                               vcpu.upcall_vector, vcpu.registered ? 1u : 0u,
                               vcpu.initialised ? 1u : 0u}));
    to.section("TIMR", id, xen_timer::encode(vcpu.timers));
  }
}

void write_ports(Writer& to, const PortsSnapshot& ports) {
  const vm_superio::SerialState& s = ports.serial;
  const auto bit = [](bool value) { return static_cast<std::uint8_t>(value ? 1 : 0); };
  to.section(
      "UART", 0,
      bytes_of(Uart{s.input, s.input_size, s.divisor_low, s.divisor_high, s.interrupt_enable,
                    s.line_control, s.modem_control, s.modem_delta, s.scratch, bit(s.fifos),
                    bit(s.overrun), bit(s.transmitter_empty_pending), bit(s.input_refused)}));
  to.section("RTC ", 0, bytes_of(Cmos{ports.rtc.bytes, ports.rtc.index}));
}

void write_ram(Writer& to, std::size_t index, const RamSnapshot& ram) {
  const Ram head{ram.gpa.value, ram.size, ram.runs.size()};
  std::vector<RamRun> runs;
  std::vector<Bytes> pieces(2);
  for (const RamSnapshot::Run& run : ram.runs) {
    runs.push_back({run.offset, run.bytes.size()});
    pieces.push_back(run.bytes);
  }
  pieces[0] = bytes_of(head);
  pieces[1] = bytes_of(runs);
  to.section("RAM ", index, pieces);
}

}  // namespace

Result<void> write_snapshot(const Snapshot& snapshot, const ByteSink& sink) {
  Writer to(sink);
  to.head();
  to.section("CONF", 0,
             bytes_of(Conf{static_cast<std::uint32_t>(snapshot.boot),
                           static_cast<std::uint32_t>(snapshot.mode),
                           static_cast<std::uint32_t>(snapshot.vcpus.size()),
                           snapshot.ports ? 1u : 0u, snapshot.ram_size}));
  to.section("TIME", 0, bytes_of(snapshot.clock));
  to.section("CHIP", 0, std::as_bytes(std::span(snapshot.irqchips)));
  for (std::size_t id = 0; id < snapshot.vcpus.size(); ++id) {
    write_vcpu(to, id, snapshot.vcpus[id]);
  }
  if (snapshot.xen) write_xen(to, *snapshot.xen);
  if (snapshot.ports) write_ports(to, *snapshot.ports);
  for (std::size_t index = 0; index < snapshot.ram.size(); ++index) {
    write_ram(to, index, snapshot.ram[index]);
  }
  return to.end();
}

}  // namespace vmm_reference
