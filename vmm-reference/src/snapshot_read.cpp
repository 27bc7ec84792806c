// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <utility>

#include "grant_frames.hpp"
#include "linux_loader/memory_map.hpp"
#include "snapshot_format.hpp"
#include "snapshot_wire.hpp"
#include "vm_superio/serial.hpp"
#include "vmm_base/guest_address.hpp"
#include "vmm_reference/guest_protocol.hpp"
#include "xen_evtchn/channels.hpp"

namespace vmm_reference {

using vmm_base::page_size;

namespace {

using namespace snapshot_wire;
template <class T>
using Read =
    boost::outcome_v2::basic_result<T, SnapshotError, boost::outcome_v2::policy::all_narrow>;

std::string printable(std::span<const char> name) {
  std::string text;
  for (const char letter : name) text += letter >= ' ' && letter < 0x7f ? letter : '?';
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

constexpr std::string_view known_names[] = {"CONF", "TIME", "CHIP", "CPU ", "CPID", "MSRS",
                                            "XSAV", "APIC", "NEST", "XEN ", "GRNT", "EVTC",
                                            "XCPU", "TIMR", "UART", "RTC ", "RAM ", "END "};

class Reader {
 public:
  explicit Reader(Bytes bytes) : bytes_(bytes) {}

  Read<void> head() {
    Head head;
    const Head good;
    if (bytes_.size() < sizeof(head)) return fail("too short for a snapshot");
    std::memcpy(&head, bytes_.data(), sizeof(head));
    if (head.magic != good.magic) return fail("not a snapshot of vmm-reference");
    if (head.crc != head_crc(head)) return fail("the checksum of its head is wrong");
    if (head.version != good.version) {
      at_ = sizeof(head.magic);
      return fail("a snapshot of version " + std::to_string(head.version) + ", of which only " +
                  std::to_string(good.version) + " can be read");
    }
    at_ = sizeof(head);
    return vmm_base::success();
  }

  // The next section's content; it has to be that one.
  Read<Bytes> section(std::string_view name, std::size_t index) {
    SectionHead head;
    start_ = at_;
    const std::string_view wanted = name;
    if (left() < sizeof(head)) return cut(wanted);
    std::memcpy(&head, bytes_.data() + at_, sizeof(head));
    if (head.crc != head_crc(head)) return fail("the checksum of a section's head is wrong");
    const std::string_view found(head.name.data(), head.name.size());
    if (std::find(std::begin(known_names), std::end(known_names), found) == std::end(known_names)) {
      return fail("an unknown section, " + printable(head.name));
    }
    if (found != name || head.index != index || head.zero != 0) {
      return fail("section " + printable(head.name) + " of " + std::to_string(head.index) +
                  " where " + printable(std::span(name)) + " of " + std::to_string(index) +
                  " is due");
    }
    section_ = "section " + printable(head.name) + " of " + std::to_string(index) + ": ";
    at_ += sizeof(head);
    const std::uint64_t padded = head.size + (8 - head.size % 8) % 8;
    if (padded < head.size || padded > left() || left() - padded < sizeof(SectionEnd)) {
      return cut(wanted);
    }
    const Bytes content = bytes_.subspan(at_, head.size);
    const Bytes padding = bytes_.subspan(at_ + head.size, padded - head.size);
    SectionEnd end;
    std::memcpy(&end, bytes_.data() + at_ + padded, sizeof(end));
    if (end.crc != crc_of(content)) return fail(section_ + "its checksum is wrong");
    const bool clean = std::all_of(padding.begin(), padding.end(),
                                   [](std::byte value) { return value == std::byte{0}; });
    if (!clean || end.zero != 0) return fail(section_ + "not zero behind its end");
    content_ = at_;
    at_ += padded + sizeof(end);
    ++sections_;
    return content;
  }
  template <Wire T>
  Read<T> value(std::string_view name, std::size_t index) {
    VMM_TRY(content, section(name, index));
    if (content.size() != sizeof(T)) return bad_size(content.size());
    T value;
    std::memcpy(&value, content.data(), sizeof(T));
    return value;
  }
  template <Wire T>
  Read<std::vector<T>> values(std::string_view name, std::size_t index) {
    VMM_TRY(content, section(name, index));
    if (content.size() % sizeof(T) != 0) return bad_size(content.size());
    std::vector<T> values(content.size() / sizeof(T));
    if (!values.empty()) std::memcpy(values.data(), content.data(), content.size());
    return values;
  }
  Read<std::vector<std::byte>> copy(std::string_view name, std::size_t index) {
    VMM_TRY(content, section(name, index));
    return std::vector<std::byte>(content.begin(), content.end());
  }
  Read<void> end() {
    const std::uint64_t before = sections_;
    VMM_TRY(count, value<std::uint64_t>("END ", 0));
    if (count != before)
      return bad("there are " + std::to_string(before) + " before, not " + std::to_string(count));
    if (left() != 0) return fail("goes on after its end");
    return vmm_base::success();
  }

  // About the section that was read last.
  SnapshotError bad(const std::string& what) const { return {content_, section_ + what}; }
  SnapshotError bad_size(std::uint64_t size) const {
    return bad(std::to_string(size) + " bytes can't be it");
  }

 private:
  [[nodiscard]] std::uint64_t left() const { return bytes_.size() - at_; }
  SnapshotError fail(std::string reason) const { return {at_, std::move(reason)}; }
  SnapshotError cut(std::string_view wanted) const {
    return {start_, "ends within section " + printable(std::span(wanted))};
  }

  Bytes bytes_;
  std::uint64_t at_ = 0;
  std::uint64_t start_ = 0;    // of the section
  std::uint64_t content_ = 0;  // of it
  std::uint64_t sections_ = 0;
  std::string section_;
};

template <Wire T>
T take(Bytes& from) {
  T value;
  std::memcpy(&value, from.data(), sizeof(T));
  from = from.subspan(sizeof(T));
  return value;
}

Read<void> read_vcpu(Reader& from, std::size_t id, VcpuSnapshot& vcpu) {
  VMM_TRY(cpu, from.value<Cpu>("CPU ", id));
  vcpu.regs = cpu.regs;
  vcpu.sregs = cpu.sregs;
  vcpu.debugregs = cpu.debugregs;
  vcpu.xcrs = cpu.xcrs;
  vcpu.events = cpu.events;
  vcpu.mp_state = cpu.mp_state;
  vcpu.tsc_khz = cpu.tsc_khz;
  vcpu.tsc = cpu.tsc;
  if (cpu.xcrs.nr_xcrs > std::size(cpu.xcrs.xcrs)) return from.bad("more XCRs than there are");
  VMM_TRY(cpuid, from.values<kvm_cpuid_entry2>("CPID", id));
  if (cpuid.size() > 256) return from.bad_size(cpuid.size() * sizeof(kvm_cpuid_entry2));
  vcpu.cpuid = std::move(cpuid);
  VMM_TRY(msrs, from.values<kvm_msr_entry>("MSRS", id));
  if (msrs.size() > 4096) return from.bad_size(msrs.size() * sizeof(kvm_msr_entry));
  vcpu.msrs = std::move(msrs);
  VMM_TRY(xsave, from.copy("XSAV", id));
  if (xsave.size() < sizeof(kvm_ioctls::XsaveHeader) || xsave.size() > 1 << 20) {
    return from.bad_size(xsave.size());
  }
  vcpu.xsave = std::move(xsave);
  VMM_TRY(lapic, from.section("APIC", id));
  if (lapic.size() != sizeof(vcpu.lapic.regs)) return from.bad_size(lapic.size());
  std::memcpy(vcpu.lapic.regs, lapic.data(), lapic.size());
  VMM_TRY(nested, from.copy("NEST", id));
  if (!nested.empty() &&
      (nested.size() < sizeof(kvm_ioctls::NestedStateHeader) || nested.size() > 1 << 20)) {
    return from.bad_size(nested.size());
  }
  vcpu.nested = std::move(nested);
  return vmm_base::success();
}

bool is_vector(std::uint32_t vector) { return vector == 0 || (vector >= 0x10 && vector <= 0xff); }

Read<void> read_domain(Reader& from, XenSnapshot& xen) {
  VMM_TRY(domain, from.value<Xen>("XEN ", 0));
  if (domain.shared_info != nowhere) xen.shared_info = domain.shared_info;
  xen.pages = domain.pages;
  for (std::size_t at = 0; at < xen.watchdogs.size(); ++at) {
    if (domain.watchdogs[at] < -1) return from.bad("a watchdog that bites in the past");
    if (domain.watchdogs[at] != -1) xen.watchdogs[at] = domain.watchdogs[at];
  }
  if (domain.has_end_reason > 1 || domain.runstate_update_flag > 1 ||
      (domain.has_end_reason == 0 && domain.end_reason != 0) || !is_vector(domain.upcall_vector)) {
    return from.bad("a flag or vector that can't be");
  }
  if (domain.has_end_reason != 0) xen.end_reason = domain.end_reason;
  xen.upcall_vector = static_cast<std::uint8_t>(domain.upcall_vector);
  xen.runstate_update_flag = domain.runstate_update_flag != 0;
  xen.params = domain.params;
  return vmm_base::success();
}

Read<void> read_grants(Reader& from, XenSnapshot& xen) {
  VMM_TRY(content, from.section("GRNT", 0));
  Bytes rest = content;
  if (rest.size() < sizeof(Grants)) return from.bad_size(content.size());
  const auto head = take<Grants>(rest);
  if (head.frames == 0 || head.frames > GrantFrames::max_frames || head.count > head.frames ||
      rest.size() < head.count * sizeof(Grant)) {
    return from.bad("more frames than there can be");
  }
  Bytes pages = rest.subspan(head.count * sizeof(Grant));
  xen.grant_frame_count = head.frames;
  for (std::uint32_t at = 0; at < head.count; ++at) {
    const auto grant = take<Grant>(rest);
    const bool ascends = xen.grant_frames.empty() || xen.grant_frames.back().index < grant.index;
    if (!ascends || grant.index >= head.frames || grant.has_page > 1 ||
        grant.gfn >> (52 - vmm_base::page_shift) != 0) {
      return from.bad("a frame that can't be");
    }
    GrantFrameSnapshot& frame = xen.grant_frames.emplace_back();
    frame.index = grant.index;
    frame.gfn = grant.gfn;
    if (grant.has_page == 0) continue;
    if (pages.size() < page_size) return from.bad_size(content.size());
    frame.page.assign(pages.begin(), pages.begin() + page_size);
    pages = pages.subspan(page_size);
  }
  if (!pages.empty()) return from.bad_size(content.size());
  return vmm_base::success();
}

Read<void> read_channels(Reader& from, std::uint32_t vcpus, XenSnapshot& xen) {
  VMM_TRY(open, from.values<Port>("EVTC", 0));
  xen.channels.resize(xen_abi::event_ports_64);
  std::uint32_t least = 1;
  for (const Port& port : open) {
    if (port.port < least || port.port >= xen.channels.size() || port.kind > 0xff ||
        port.remote_dom > 0xffff) {
      return from.bad("a port that can't be");
    }
    least = port.port + 1;
    xen_evtchn::Channel& channel = xen.channels[port.port];
    channel.kind = static_cast<xen_evtchn::Kind>(port.kind);
    channel.vcpu.value = port.vcpu;
    channel.remote_dom = static_cast<xen_abi::DomainId>(port.remote_dom);
    channel.remote_port.value = port.remote_port;
    channel.virq = port.virq;
    if (channel.kind == xen_evtchn::Kind::closed) return from.bad("a closed port");
  }
  xen_evtchn::Channels possible(xen_abi::event_ports_64, vcpus);
  if (auto restored = possible.restore(xen.channels); !restored) {
    return from.bad("port " + std::to_string(restored.error().operand) + " can't be so");
  }
  return vmm_base::success();
}

Read<void> read_xen_vcpu(Reader& from, std::size_t id, XenVcpuSnapshot& vcpu) {
  VMM_TRY(cpu, from.value<XenCpu>("XCPU", id));
  if (cpu.has_runstate > 1 || cpu.registered > 1 || cpu.initialised > 1 ||
      !is_vector(cpu.upcall_vector)) {
    return from.bad("a flag or vector that can't be");
  }
  const auto& run = cpu.runstate;
  const bool is_sum = run[1] == run[2] + run[3] + run[4] + run[5];
  const bool is_none = std::all_of(run.begin(), run.end(), [](auto value) { return value == 0; });
  if (cpu.has_runstate != 0 ? !is_sum || run[0] > 3 : !is_none) {
    return from.bad("a runstate that can't be");
  }
  if (cpu.has_runstate != 0) vcpu.runstate = run;
  vcpu.vcpu_info = cpu.vcpu_info;
  vcpu.time_area = cpu.time_area;
  vcpu.runstate_area = cpu.runstate_area;
  vcpu.upcall_vector = static_cast<std::uint8_t>(cpu.upcall_vector);
  vcpu.registered = cpu.registered != 0;
  vcpu.initialised = cpu.initialised != 0;
  VMM_TRY(bytes, from.section("TIMR", id));
  if (bytes.size() != xen_timer::encoded_size) return from.bad_size(bytes.size());
  const auto timers = xen_timer::decode(bytes);
  if (!timers) return from.bad(timers.error().message());
  vcpu.timers = timers.value();
  return vmm_base::success();
}

Read<PortsSnapshot> read_ports(Reader& from) {
  VMM_TRY(uart, from.value<Uart>("UART", 0));
  if ((uart.fifos | uart.overrun | uart.transmitter_empty_pending | uart.input_refused) > 1) {
    return from.bad("a flag that can't be");
  }
  PortsSnapshot ports;
  vm_superio::SerialState& s = ports.serial;
  s.input = uart.input;
  s.input_size = uart.input_size;
  s.divisor_low = uart.divisor_low;
  s.divisor_high = uart.divisor_high;
  s.interrupt_enable = uart.interrupt_enable;
  s.line_control = uart.line_control;
  s.modem_control = uart.modem_control;
  s.modem_delta = uart.modem_delta;
  s.scratch = uart.scratch;
  s.fifos = uart.fifos != 0;
  s.overrun = uart.overrun != 0;
  s.transmitter_empty_pending = uart.transmitter_empty_pending != 0;
  s.input_refused = uart.input_refused != 0;
  struct Nowhere {
    void transmit(std::uint8_t) {}
    void set_interrupt(bool) {}
    void ready_for_input() {}
  } nowhere_to;
  if (!vm_superio::Serial(nowhere_to).restore(s)) return from.bad("a UART that can't be");
  VMM_TRY(cmos, from.value<Cmos>("RTC ", 0));
  if (cmos.index > 0x7f) return from.bad("a register that isn't");
  ports.rtc = {cmos.index, cmos.bytes};
  return ports;
}

Read<void> read_ram(Reader& from, std::size_t index, RamSnapshot& ram) {
  VMM_TRY(content, from.section("RAM ", index));
  Bytes rest = content;
  if (rest.size() < sizeof(Ram)) return from.bad_size(content.size());
  const auto head = take<Ram>(rest);
  if (head.gpa != ram.gpa.value || head.size != ram.size) return from.bad("another region");
  if (head.runs > rest.size() / sizeof(RamRun)) return from.bad_size(content.size());
  Bytes data = rest.subspan(head.runs * sizeof(RamRun));
  std::uint64_t least = 0;
  ram.runs.reserve(head.runs);
  for (std::uint64_t at = 0; at < head.runs; ++at) {
    const auto run = take<RamRun>(rest);
    if ((run.offset | run.size) % page_size != 0 || run.size == 0 || run.offset < least ||
        run.offset > ram.size || run.size > ram.size - run.offset) {
      return from.bad("pages that aren't the region's");
    }
    if (run.size > data.size()) return from.bad_size(content.size());
    least = run.offset + run.size;
    ram.runs.push_back({run.offset, data.first(run.size)});
    data = data.subspan(run.size);
  }
  if (!data.empty()) return from.bad_size(content.size());
  return vmm_base::success();
}

Read<void> read_conf(Reader& from, Snapshot& to, bool& has_ports) {
  VMM_TRY(conf, from.value<Conf>("CONF", 0));
  if (conf.boot > static_cast<std::uint32_t>(Boot::native) || conf.mode >= std::size(timer_modes) ||
      conf.has_ports > 1) {
    return from.bad("a guest of another kind");
  }
  if (conf.vcpus == 0 || conf.vcpus > max_vcpus) {
    return from.bad(std::to_string(conf.vcpus) + " vCPUs");
  }
  if (conf.ram_size <= linux_loader::high_memory.value || conf.ram_size % page_size != 0 ||
      conf.ram_size > std::uint64_t{max_memory_mib} << 20) {
    return from.bad(std::to_string(conf.ram_size) + " bytes of RAM");
  }
  to.boot = static_cast<Boot>(conf.boot);
  to.mode = static_cast<TimerMode>(conf.mode);
  to.ram_size = conf.ram_size;
  to.vcpus.resize(conf.vcpus);
  has_ports = conf.has_ports != 0;
  return vmm_base::success();
}

}  // namespace

std::string SnapshotError::message() const {
  char where[32];
  std::snprintf(where, sizeof(where), "at byte 0x%" PRIx64 ": ", offset);
  return where + reason;
}

Read<Snapshot> read_snapshot(Bytes bytes) {
  Reader from(bytes);
  VMM_CHECK(from.head());
  Snapshot to;
  bool has_ports = false;
  VMM_CHECK(read_conf(from, to, has_ports));
  VMM_TRY(clock, from.value<ClockSnapshot>("TIME", 0));
  to.clock = clock;
  VMM_TRY(chips, from.section("CHIP", 0));
  if (chips.size() != sizeof(to.irqchips)) return from.bad_size(chips.size());
  std::memcpy(to.irqchips.data(), chips.data(), chips.size());
  for (std::uint32_t id = 0; id < to.irqchips.size(); ++id) {
    if (to.irqchips[id].chip_id != id) return from.bad("not the chips in their order");
  }
  for (std::size_t id = 0; id < to.vcpus.size(); ++id) {
    VMM_CHECK(read_vcpu(from, id, to.vcpus[id]));
  }
  if (to.boot != Boot::native) {
    XenSnapshot& xen = to.xen.emplace();
    VMM_CHECK(read_domain(from, xen));
    VMM_CHECK(read_grants(from, xen));
    VMM_CHECK(read_channels(from, static_cast<std::uint32_t>(to.vcpus.size()), xen));
    xen.vcpus.resize(to.vcpus.size());
    for (std::size_t id = 0; id < to.vcpus.size(); ++id) {
      VMM_CHECK(read_xen_vcpu(from, id, xen.vcpus[id]));
    }
  }
  if (has_ports) {
    VMM_TRY(ports, read_ports(from));
    to.ports = ports;
  }
  const auto ram = linux_loader::pc_ram(to.ram_size);
  to.ram.push_back({vmm_base::Gpa{0}, ram.low, {}});
  if (ram.high != 0) to.ram.push_back({linux_loader::above_4g, ram.high, {}});
  for (std::size_t index = 0; index < to.ram.size(); ++index) {
    VMM_CHECK(read_ram(from, index, to.ram[index]));
  }
  VMM_CHECK(from.end());
  return to;
}

}  // namespace vmm_reference
