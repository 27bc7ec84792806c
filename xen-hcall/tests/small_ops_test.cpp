// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// grant_table_op, console_io, physdev_op, vm_assist.
#include "double_vmm.hpp"
#include "xen_hcall/console_op.hpp"
#include "xen_hcall/grant_table_op.hpp"
#include "xen_hcall/physdev_op.hpp"
#include "xen_hcall/vm_assist_op.hpp"

namespace xen_hcall {
namespace {

using xen_abi::domid_self;

struct Grants : Fixture {
  GrantTableOp<DoubleVmm> grants{vmm, 7};
  GuestResult call(std::uint32_t sub, std::uint64_t count = 1, std::uint64_t gva = base,
                   bool long_mode = true) {
    return ask(grants, Hypercall{20, {sub, gva, count}, long_mode, 0});
  }
};
namespace gnttab = xen_abi::gnttabop;

TEST_F(Grants, QuerySizeAnswersInItsStatus) {
  EXPECT_EQ(call(gnttab::query_size, 0x80000000), GuestResult(Errno::inval));
  EXPECT_EQ(call(gnttab::query_size, 2, unmapped), GuestResult(Errno::inval));
  EXPECT_EQ(call(gnttab::query_size, 1, unmapped), GuestResult(Errno::fault));
  put(xen_abi::GnttabQuerySize{5, 9, 9, 9});
  EXPECT_EQ(call(gnttab::query_size), GuestResult::ok());
  EXPECT_EQ(get<xen_abi::GnttabQuerySize>().status, xen_abi::grant_status::bad_domain);
  put(xen_abi::GnttabQuerySize{domid_self, 9, 9, 9});
  EXPECT_EQ(call(gnttab::query_size), GuestResult::ok());
  EXPECT_EQ(get<xen_abi::GnttabQuerySize>().nr_frames, 1u);
  EXPECT_EQ(get<xen_abi::GnttabQuerySize>().max_nr_frames, 4u);
  EXPECT_EQ(get<xen_abi::GnttabQuerySize>().status, 0);
  vmm.read_only_from = base;
  EXPECT_EQ(call(gnttab::query_size), GuestResult(Errno::fault));
}

TEST_F(Grants, SetupTableListsWhereTheFramesLieInBothWidths) {
  vmm.grant_frames = {{0, 0x123}};
  put(xen_abi::GnttabSetupTable<std::uint64_t>{domid_self, 2, 9, base + 0x100});
  EXPECT_EQ(call(gnttab::setup_table), GuestResult::ok());
  EXPECT_EQ(get<std::uint64_t>(base + 0x100), 0x123u);
  EXPECT_EQ(get<std::uint64_t>(base + 0x108), ~std::uint64_t{0});  // not mapped yet
  EXPECT_EQ(get<xen_abi::GnttabSetupTable<std::uint64_t>>().status, 0);
  EXPECT_EQ(vmm.grants.frames, 2u);
  put(xen_abi::GnttabSetupTable<std::uint32_t>{domid_self, 1, 9, base + 0x200});
  EXPECT_EQ(call(gnttab::setup_table, 1, base, false), GuestResult::ok());
  EXPECT_EQ(get<std::uint64_t>(base + 0x200), 0x123u);
  EXPECT_EQ(get<xen_abi::GnttabSetupTable<std::uint32_t>>().status, 0);
}

TEST_F(Grants, SetupTableErrors) {
  using Setup = xen_abi::GnttabSetupTable<std::uint64_t>;
  const auto status = [&](const Setup& setup) {
    put(setup);
    EXPECT_EQ(call(gnttab::setup_table), GuestResult::ok());
    return get<Setup>().status;
  };
  EXPECT_EQ(call(gnttab::setup_table, 0), GuestResult(Errno::inval));
  EXPECT_EQ(call(gnttab::setup_table, 1, unmapped), GuestResult(Errno::fault));
  EXPECT_EQ(status({5, 1, 9, base + 0x100}), xen_abi::grant_status::bad_domain);
  EXPECT_EQ(status({7, 5, 9, base + 0x100}), xen_abi::grant_status::general_error);
  EXPECT_EQ(status({7, 1, 9, unmapped}), xen_abi::grant_status::bad_virt_addr);
  vmm.failure = ENOMEM;
  EXPECT_EQ(status({7, 2, 9, base + 0x100}), xen_abi::grant_status::general_error);
}

TEST_F(Grants, TheVersionIs1) {
  EXPECT_EQ(call(gnttab::set_version, 1, unmapped), GuestResult(Errno::fault));
  for (const auto& [asked, answer] :
       {std::pair{1u, GuestResult::ok()}, std::pair{2u, GuestResult(Errno::nosys)},
        std::pair{3u, GuestResult(Errno::inval)}}) {
    put(xen_abi::GnttabSetVersion{asked});
    EXPECT_EQ(call(gnttab::set_version), answer);
    EXPECT_EQ(get<std::uint32_t>(), 1u);
  }
  EXPECT_EQ(call(gnttab::get_version, 1, unmapped), GuestResult(Errno::fault));
  put(xen_abi::GnttabGetVersion{5, 0, 9});
  EXPECT_EQ(call(gnttab::get_version), GuestResult(Errno::srch));
  put(xen_abi::GnttabGetVersion{7, 0, 9});
  EXPECT_EQ(call(gnttab::get_version), GuestResult::ok());
  EXPECT_EQ(get<xen_abi::GnttabGetVersion>().version, 1u);
  vmm.read_only_from = base;
  EXPECT_EQ(call(gnttab::get_version), GuestResult(Errno::fault));
  EXPECT_EQ(call(gnttab::set_version), GuestResult(Errno::fault));
  EXPECT_EQ(call(gnttab::map_grant_ref), GuestResult(Errno::nosys));
}

struct Console : Fixture {
  ConsoleOp<DoubleVmm> console{vmm};
  GuestResult call(std::uint32_t sub, std::uint64_t count, std::uint64_t gva = base) {
    return ask(console, Hypercall{18, {sub, count, gva}});
  }
};
namespace consoleio = xen_abi::consoleio;

TEST_F(Console, WriteShowsAllOfIt) {
  std::string text(600, 'x');
  text += '\n';
  std::memcpy(vmm.memory.data(), text.data(), text.size());
  EXPECT_EQ(call(consoleio::write, text.size()), GuestResult::ok());
  EXPECT_EQ(vmm.shown, text);
  EXPECT_EQ(call(consoleio::write, 5, unmapped), GuestResult(Errno::fault));
  EXPECT_EQ(call(consoleio::write, 0, unmapped), GuestResult::ok());
  EXPECT_EQ(call(consoleio::write, 0x10001), GuestResult(Errno::too_big));
  EXPECT_EQ(call(consoleio::write, memory_size + 1), GuestResult(Errno::fault));
}

TEST_F(Console, ReadSaysHowMuchThereWas) {
  vmm.typed = "hello";
  EXPECT_EQ(call(consoleio::read, 3), GuestResult::ok(3));
  EXPECT_EQ(call(consoleio::read, 100, base + 3), GuestResult::ok(2));
  EXPECT_EQ(std::memcmp(vmm.memory.data(), "hello", 5), 0);
  EXPECT_EQ(call(consoleio::read, 100), GuestResult::ok(0));
  EXPECT_EQ(call(consoleio::read, 0x80000000), GuestResult(Errno::too_big));
  vmm.typed = "x";
  EXPECT_EQ(call(consoleio::read, 1, unmapped), GuestResult(Errno::fault));
  EXPECT_EQ(call(2, 1), GuestResult(Errno::nosys));
}

struct Physdev : Fixture {
  PhysdevOp<DoubleVmm> physdev{vmm, 7};
  GuestResult call(std::uint32_t sub, std::uint64_t gva = base, bool long_mode = true) {
    return ask(physdev, Hypercall{33, {sub, gva}, long_mode, 0});
  }
};

TEST_F(Physdev, PirqsAreRefused) {
  for (const auto sub : {xen_abi::physdevop::map_pirq, xen_abi::physdevop::unmap_pirq}) {
    EXPECT_EQ(call(sub, unmapped), GuestResult(Errno::fault));
    put(xen_abi::DomainId{5});
    EXPECT_EQ(call(sub), GuestResult(Errno::srch));
    put(domid_self);
    EXPECT_EQ(call(sub), GuestResult(Errno::perm));
  }
  // 36 bytes, and 40.
  put(domid_self, base + memory_size - 36);
  EXPECT_EQ(call(xen_abi::physdevop::map_pirq, base + memory_size - 36, false),
            GuestResult(Errno::perm));
  EXPECT_EQ(call(xen_abi::physdevop::map_pirq, base + memory_size - 36), GuestResult(Errno::fault));
  EXPECT_EQ(call(xen_abi::physdevop::eoi), GuestResult(Errno::nosys));
}

struct VmAssist : Fixture {
  VmAssistOp<DoubleVmm> assist{vmm};
  GuestResult call(std::uint32_t command, std::uint32_t type) {
    return ask(assist, Hypercall{21, {command, type}});
  }
};

TEST_F(VmAssist, TheRunstateUpdateFlagIsTheOnlyOne) {
  EXPECT_EQ(call(0, 4), GuestResult(Errno::inval));
  EXPECT_EQ(call(9, 4), GuestResult(Errno::inval));
  EXPECT_EQ(call(9, 5), GuestResult(Errno::nosys));
  EXPECT_EQ(call(0, 5), GuestResult::ok());
  EXPECT_EQ(call(1, 5), GuestResult::ok());
  EXPECT_EQ(said(), (Lines{"update flag 1", "update flag 0"}));
  vmm.failure = EINVAL;
  EXPECT_EQ(call(0, 5), GuestResult(Errno::inval));
}

}  // namespace
}  // namespace xen_hcall
