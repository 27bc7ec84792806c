// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "xen_hcall/memory_op.hpp"

#include "double_vmm.hpp"

namespace xen_hcall {
namespace {

namespace op = xen_abi::memory_op;
namespace space = xen_abi::mapspace;
using xen_abi::domid_self;

template <class Word>
struct Memory : Fixture {
  std::vector<xen_abi::E820Entry> map{{0, 0xa0000, xen_abi::e820_ram},
                                      {0xf0000, 0x10000, 2},
                                      {0x100000, 0x700000, xen_abi::e820_ram}};
  MemoryOp<DoubleVmm> memory{vmm, map, 7};
  static constexpr std::int64_t pages = 0xa0 + 0x700;

  GuestResult call(std::uint64_t sub, std::uint64_t gva = base) {
    return ask(memory, Hypercall{12, {sub, gva}, sizeof(Word) == 8, 0});
  }
  GuestResult add(std::uint32_t where, Word idx, Word gpfn, xen_abi::DomainId domid = domid_self) {
    put(xen_abi::AddToPhysmap<Word>{domid, 0, where, idx, gpfn});
    return call(op::add_to_physmap);
  }
  // The list of frames lies at base + 0x100.
  static constexpr std::uint64_t list = base + 0x100;
  GuestResult reserve(std::uint32_t sub, std::vector<Word> gfns, std::uint32_t order = 0,
                      xen_abi::DomainId domid = domid_self, std::uint64_t start = 0) {
    for (std::size_t at = 0; at < gfns.size(); ++at) put(gfns[at], list + at * sizeof(Word));
    put(xen_abi::MemoryReservation<Word>{static_cast<Word>(list), static_cast<Word>(gfns.size()),
                                         order, 0, domid});
    return call(sub | start << op::extent_shift);
  }
};
using Words = testing::Types<std::uint64_t, std::uint32_t>;
TYPED_TEST_SUITE(Memory, Words);

TYPED_TEST(Memory, AddToPhysmapMapsSharedInfoAndGrantFrames) {
  EXPECT_EQ(this->add(space::shared_info, 0, 0x123), GuestResult::ok());
  EXPECT_EQ(this->add(space::grant_table, 2, 0x124, 7), GuestResult::ok());
  EXPECT_EQ(this->said(), (Lines{"shared_info 291", "grant_frame 2 292"}));
}

TYPED_TEST(Memory, AddToPhysmapErrorsInXensOrder) {
  EXPECT_EQ(this->call(op::add_to_physmap | 0x10000 << op::extent_shift, unmapped),
            GuestResult(Errno::dom));
  EXPECT_EQ(this->call(op::add_to_physmap, unmapped), GuestResult(Errno::fault));
  EXPECT_EQ(this->add(space::gmfn_foreign, 0, 1, 5), GuestResult(Errno::nosys));
  EXPECT_EQ(this->add(space::dev_mmio, 0, 1, 5), GuestResult(Errno::srch));
  EXPECT_EQ(this->add(space::dev_mmio, 0, 1), GuestResult(Errno::acces));
  EXPECT_EQ(this->add(space::shared_info, 1, 1), GuestResult(Errno::inval));
  EXPECT_EQ(this->add(space::grant_table, 0x80000000, 1), GuestResult(Errno::inval));
  EXPECT_EQ(this->add(space::grant_table, 4, 1), GuestResult(Errno::inval));
  EXPECT_EQ(this->add(space::gmfn, 0, 1), GuestResult(Errno::opnotsupp));
  EXPECT_EQ(this->add(6, 0, 1), GuestResult(Errno::inval));
  EXPECT_EQ(this->said(), Lines{});
  if (sizeof(TypeParam) == 8) {
    EXPECT_EQ(this->add(space::shared_info, 0, static_cast<TypeParam>(-1)),
              GuestResult(Errno::inval));
    EXPECT_EQ(this->add(space::grant_table, static_cast<TypeParam>(0x1'0000'0001), 1),
              GuestResult(Errno::inval));
    EXPECT_EQ(this->said(), Lines{});
  }
  this->vmm.failure = ENOMEM;
  EXPECT_EQ(this->add(space::shared_info, 0, 1), GuestResult(Errno::inval));
}

TYPED_TEST(Memory, ABatchAnswersEachOfItsPages) {
  using Batch = xen_abi::AddToPhysmapBatch<TypeParam>;
  const auto at = [](std::uint64_t offset) { return static_cast<TypeParam>(base + offset); };
  const Batch batch{domid_self, space::grant_table, 3, 0, at(0x100), at(0x200), at(0x300)};
  for (TypeParam index = 0; index < 3; ++index) {
    this->put(static_cast<TypeParam>(3 + index), base + 0x100 + index * sizeof(TypeParam));
    this->put(static_cast<TypeParam>(40 + index), base + 0x200 + index * sizeof(TypeParam));
  }
  this->put(batch);
  EXPECT_EQ(this->call(op::add_to_physmap_batch), GuestResult::ok());
  EXPECT_EQ(this->template get<std::int32_t>(base + 0x300), 0);
  EXPECT_EQ(this->template get<std::int32_t>(base + 0x304), -22);  // beyond the table
  EXPECT_EQ(this->template get<std::int32_t>(base + 0x308), -22);
  EXPECT_EQ(this->said(), Lines{"grant_frame 3 40"});

  // From the second on.
  EXPECT_EQ(this->call(op::add_to_physmap_batch | 1 << op::extent_shift), GuestResult::ok());
  EXPECT_EQ(this->said(), Lines{});
}

TYPED_TEST(Memory, BatchErrorsInXensOrder) {
  using Batch = xen_abi::AddToPhysmapBatch<TypeParam>;
  const auto batch = [&](Batch argument, std::uint64_t start = 0) {
    this->put(argument);
    return this->call(op::add_to_physmap_batch | start << op::extent_shift);
  };
  EXPECT_EQ(this->call(op::add_to_physmap_batch | 0x10000 << op::extent_shift, unmapped),
            GuestResult(Errno::dom));
  EXPECT_EQ(this->call(op::add_to_physmap_batch, unmapped), GuestResult(Errno::fault));
  EXPECT_EQ(batch({5, space::gmfn_range, 1, 0, 0, 0, 0}), GuestResult(Errno::opnotsupp));
  EXPECT_EQ(batch({5, space::dev_mmio, 1, 0, 0, 0, 0}), GuestResult(Errno::srch));
  EXPECT_EQ(batch({7, space::dev_mmio, 1, 0, 0, 0, 0}), GuestResult(Errno::acces));
  EXPECT_EQ(batch({7, space::grant_table, 1, 0, 0, 0, 0}, 2), GuestResult(Errno::ilseq));
  EXPECT_EQ(batch({7, space::grant_table, 1, 0, 0, 0, 0}, 1), GuestResult(Errno::ilseq));
  EXPECT_EQ(batch({7, space::grant_table, 0, 0, 0, 0, 0}), GuestResult::ok());
  EXPECT_EQ(batch({7, space::grant_table, 4097, 0, 0, 0, 0}), GuestResult(Errno::too_big));
  EXPECT_EQ(batch({7, space::grant_table, 4097, 0, 0, 0, 0}, 1), GuestResult(Errno::fault));
  EXPECT_EQ(batch({7, space::grant_table, 1, 0, 0, base, base}), GuestResult(Errno::fault));
  EXPECT_EQ(batch({7, space::grant_table, 1, 0, base, 0, base}), GuestResult(Errno::fault));
  this->put(std::uint64_t{0}, base + 0x100);
  EXPECT_EQ(batch({7, space::grant_table, 1, 0, base + 0x100, base + 0x100, 0}),
            GuestResult(Errno::fault));
}

TYPED_TEST(Memory, TheBalloonSaysHowManyExtentsAreDone) {
  EXPECT_EQ(this->reserve(op::decrease_reservation, {5, 6, 200, 7}), GuestResult::ok(2));
  EXPECT_EQ(this->said(), (Lines{"remove 5", "remove 6", "remove 200"}));
  this->put(domid_self);
  EXPECT_EQ(this->call(op::current_reservation), GuestResult::ok(this->pages - 2));
  EXPECT_EQ(this->reserve(op::populate_physmap, {5, 6, 7}),
            GuestResult::ok(2));  // no more than it had
  EXPECT_EQ(this->said(), (Lines{"populate 5", "populate 6"}));
  EXPECT_EQ(this->reserve(op::increase_reservation, {5}), GuestResult::ok(0));
  EXPECT_EQ(this->reserve(op::decrease_reservation, {8, 9}, 0, domid_self, 1), GuestResult::ok(2));
  EXPECT_EQ(this->said(), (Lines{"remove 9"}));
  EXPECT_EQ(this->reserve(op::decrease_reservation, {16}, 1), GuestResult::ok(1));
  EXPECT_EQ(this->said(), (Lines{"remove 16", "remove 17"}));
}

TYPED_TEST(Memory, TheBalloonDoesNothingForWhatItDoesntUnderstand) {
  EXPECT_EQ(this->call(op::decrease_reservation, unmapped), GuestResult::ok(0));
  EXPECT_EQ(this->call(op::decrease_reservation | 3 << op::extent_shift, unmapped),
            GuestResult::ok(3));
  EXPECT_EQ(this->reserve(op::decrease_reservation, {5}, 0, 5), GuestResult::ok(0));
  EXPECT_EQ(this->reserve(op::decrease_reservation, {5}, 10), GuestResult::ok(0));
  EXPECT_EQ(this->reserve(op::decrease_reservation, {5}, 0, domid_self, 1), GuestResult::ok(1));
  using Reservation = xen_abi::MemoryReservation<TypeParam>;
  this->put(Reservation{unmapped, 1, 0, 0, domid_self});
  EXPECT_EQ(this->call(op::decrease_reservation), GuestResult::ok(0));
  this->put(Reservation{unmapped, 0x4000000, 0, 0, domid_self});
  EXPECT_EQ(this->call(op::decrease_reservation), GuestResult::ok(0));
  EXPECT_EQ(this->said(), Lines{});
}

TYPED_TEST(Memory, TheBalloonStopsAfter4096PagesToBeCalledAgain) {
  using Reservation = xen_abi::MemoryReservation<TypeParam>;
  for (std::uint64_t at = 0; at < 16; ++at) {
    this->put(static_cast<TypeParam>(0), this->list + at * sizeof(TypeParam));
  }
  this->put(Reservation{static_cast<TypeParam>(this->list), 16, 6, 0, domid_self});
  EXPECT_EQ(this->call(op::decrease_reservation), GuestResult::ok(16));
  this->put(Reservation{static_cast<TypeParam>(this->list), 0x3ffffff, 6, 0, domid_self});
  EXPECT_EQ(this->call(op::decrease_reservation), GuestResult::ok(64));
}

TYPED_TEST(Memory, RemoveFromPhysmap) {
  using Remove = xen_abi::RemoveFromPhysmap<TypeParam>;
  EXPECT_EQ(this->call(op::remove_from_physmap | 1 << op::extent_shift, unmapped),
            GuestResult(Errno::inval));
  EXPECT_EQ(this->call(op::remove_from_physmap, unmapped), GuestResult(Errno::fault));
  this->put(Remove{5, 1});
  EXPECT_EQ(this->call(op::remove_from_physmap), GuestResult(Errno::srch));
  this->put(Remove{domid_self, 100});
  EXPECT_EQ(this->call(op::remove_from_physmap), GuestResult(Errno::noent));
  this->put(Remove{domid_self, 99});
  EXPECT_EQ(this->call(op::remove_from_physmap), GuestResult::ok());
}

TYPED_TEST(Memory, TheMapIsGivenAsFarAsThereIsRoom) {
  using Map = xen_abi::MemoryMap<TypeParam>;
  EXPECT_EQ(this->call(op::memory_map, unmapped), GuestResult(Errno::fault));
  this->put(Map{2, base + 0x100});
  EXPECT_EQ(this->call(op::memory_map), GuestResult::ok());
  EXPECT_EQ(this->template get<Map>().nr_entries, 2u);
  EXPECT_EQ(this->template get<xen_abi::E820Entry>(base + 0x114).size, 0x10000u);
  EXPECT_EQ(this->template get<std::uint8_t>(base + 0x128), 0u);
  this->put(Map{9, base + 0x100});
  EXPECT_EQ(this->call(op::memory_map), GuestResult::ok());
  EXPECT_EQ(this->template get<Map>().nr_entries, 3u);
  this->put(Map{9, unmapped});
  EXPECT_EQ(this->call(op::memory_map), GuestResult(Errno::fault));
  EXPECT_EQ(this->call(op::memory_map | 1 << op::extent_shift), GuestResult(Errno::nosys));
  MemoryOp<DoubleVmm> without{this->vmm};
  this->put(Map{9, base + 0x100});
  EXPECT_EQ(this->ask(without, Hypercall{12, {op::memory_map, base}, sizeof(TypeParam) == 8, 0}),
            GuestResult(Errno::nosys));
}

TYPED_TEST(Memory, Sizes) {
  for (const auto sub : {op::current_reservation, op::maximum_reservation, op::maximum_gpfn}) {
    EXPECT_EQ(this->call(sub | 1 << op::extent_shift), GuestResult(Errno::inval));
    EXPECT_EQ(this->call(sub, unmapped), GuestResult(Errno::fault));
    this->put(xen_abi::DomainId{5});
    EXPECT_EQ(this->call(sub), GuestResult(Errno::srch));
  }
  this->put(xen_abi::DomainId{7});
  EXPECT_EQ(this->call(op::current_reservation), GuestResult::ok(this->pages));
  EXPECT_EQ(this->call(op::maximum_reservation), GuestResult::ok(this->pages));
  EXPECT_EQ(this->call(op::maximum_gpfn), GuestResult::ok(0x7ff));
  EXPECT_EQ(this->call(op::maximum_ram_page, 0), GuestResult::ok(0x800));
  EXPECT_EQ(this->call(op::maximum_ram_page | 1 << op::extent_shift), GuestResult(Errno::inval));
}

TYPED_TEST(Memory, WhatIsForOthersAndWhatIsnt) {
  EXPECT_EQ(this->call(op::machine_memory_map), GuestResult(Errno::perm));
  EXPECT_EQ(this->call(op::get_sharing_freed_pages), GuestResult::ok());
  EXPECT_EQ(this->call(op::get_sharing_shared_pages), GuestResult::ok());
  EXPECT_EQ(this->call(op::get_sharing_freed_pages | 1 << op::extent_shift),
            GuestResult(Errno::nosys));
  EXPECT_EQ(this->call(63), GuestResult(Errno::nosys));
  EXPECT_FALSE(this->memory.handle({0}, Hypercall{13, {7}}));
}

}  // namespace
}  // namespace xen_hcall
