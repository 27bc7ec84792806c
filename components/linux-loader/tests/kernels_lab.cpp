// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Loads Debian's own kernels: each bzImage that is named, in each way. A kernel that isn't there is
// a failure; tests/lab/fetch gets them.
//
//   kernels_lab ~/.cache/cpp-vmm/kernels/*/vmlinuz
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "linux_loader/boot.hpp"
#include "linux_loader/bzimage.hpp"
#include "linux_loader/elf.hpp"
#include "linux_loader/mapped_file.hpp"

namespace linux_loader {

std::vector<std::string> kernels;  // The command line's.

namespace {

using vmm_base::Gpa;

// 512 MiB, mapped for the loader or not.
class Ram {
 public:
  static constexpr std::uint64_t size = 512 << 20;

  Ram()
      : bytes_(
            static_cast<std::byte*>(::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))) {
    if (bytes_ == MAP_FAILED) std::abort();
  }
  Ram(const Ram&) = delete;
  Ram& operator=(const Ram&) = delete;
  ~Ram() { ::munmap(bytes_, size); }

  vmm_base::Result<void> write(Gpa to, std::span<const std::byte> data) {
    if (!contains(to, data.size())) return vmm_base::Error{"write", EFAULT, to.value};
    std::memcpy(bytes_ + to.value, data.data(), data.size());
    return vmm_base::success();
  }
  vmm_base::Result<void> fill_zero(Gpa to, std::uint64_t count) {
    if (!contains(to, count)) return vmm_base::Error{"fill_zero", EFAULT, to.value};
    std::memset(bytes_ + to.value, 0, count);
    return vmm_base::success();
  }
  [[nodiscard]] std::span<const std::byte> bytes() const { return {bytes_, size}; }

 protected:
  [[nodiscard]] static bool contains(Gpa to, std::uint64_t count) {
    return to.value <= size && count <= size - to.value;
  }
  std::byte* bytes_;
};
class MappedRam : public Ram {
 public:
  std::byte* host(Gpa to, std::uint64_t count) {
    return contains(to, count) ? bytes_ + to.value : nullptr;
  }
};

class DebianKernel : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    auto opened = MappedFile::open(GetParam().c_str());
    ASSERT_TRUE(opened) << GetParam() << ": " << opened.error().message();
    file_ = std::make_unique<MappedFile>(std::move(opened.value()));
  }
  [[nodiscard]] LinuxConfig config(Entry entry) const {
    return {
        .kernel = file_->bytes(), .cmdline = "console=ttyS0", .memory_map = map_, .entry = entry};
  }
  std::unique_ptr<MappedFile> file_;
  std::vector<MemoryRange> map_ = pc_memory_map(Ram::size);
};

TEST_P(DebianKernel, LoadsInEachWay) {
  for (const auto& [entry, name] : {std::pair{Entry::pvh, "pvh"},
                                    {Entry::linux64, "linux64"},
                                    {Entry::decompressor, "decompressor"}}) {
    MappedRam ram;
    const auto start = std::chrono::steady_clock::now();
    const auto state = load_linux(ram, config(entry));
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    ASSERT_TRUE(state) << state.error().message();
    std::printf("%s, %s: %.0f ms\n", GetParam().c_str(), name, took.count());
  }
}

// Unpacked in place or apart and copied, the guest finds the same.
TEST_P(DebianKernel, IsTheSameInMemoryThatIsNotMapped) {
  MappedRam mapped;
  Ram plain;
  const auto in_place = load_linux(mapped, config(Entry::pvh));
  const auto copied = load_linux(plain, config(Entry::pvh));
  ASSERT_TRUE(in_place && copied);
  EXPECT_EQ(in_place.value().rip, copied.value().rip);
  EXPECT_EQ(std::memcmp(mapped.bytes().data(), plain.bytes().data(), Ram::size), 0);
}

// Its segments are what an ELF loader makes of the unpacked file, byte by byte.
TEST_P(DebianKernel, LiesWhereItsProgramHeadersSay) {
  const BzImage image = parse_bzimage(file_->bytes()).value();
  std::vector<std::byte> vmlinux(image.unpacked_size);
  ASSERT_TRUE(unpack(image, vmlinux));
  const auto elf = parse_pvh_elf(vmlinux);
  ASSERT_TRUE(elf) << elf.error().message();
  MappedRam ram;
  const auto state = load_linux(ram, config(Entry::pvh));
  ASSERT_TRUE(state);
  EXPECT_EQ(state.value().rip, elf.value().image.entry.value);
  for (const Segment& segment : elf.value().segments) {
    const auto there = ram.bytes().subspan(segment.address.value, segment.data.size());
    EXPECT_EQ(std::memcmp(there.data(), segment.data.data(), segment.data.size()), 0);
  }
}

TEST_P(DebianKernel, IsRefusedCutShortOrDamaged) {
  const auto good = file_->bytes();
  MappedRam ram;
  for (const std::size_t size : {good.size() / 2, good.size() / 4, std::size_t{40000}}) {
    LinuxConfig cut = config(Entry::pvh);
    cut.kernel = good.first(size);
    EXPECT_FALSE(load_linux(ram, cut));
  }
  // In the middle of the packed kernel: an error, or, as lz4 has no checksum, sane all the same.
  std::vector<std::byte> damaged(good.begin(), good.end());
  for (std::size_t i = 0; i < 64; ++i) damaged[damaged.size() / 2 + i] ^= std::byte{0xff};
  LinuxConfig hurt = config(Entry::pvh);
  hurt.kernel = damaged;
  const bool has_checksum = parse_bzimage(good).value().payload[0] != std::byte{0x02};
  EXPECT_FALSE(load_linux(ram, hurt).has_value() && has_checksum);
}

TEST_P(DebianKernel, IsRefusedWhereRamIsTooSmall) {
  map_ = pc_memory_map(64 << 20);
  for (const Entry entry : {Entry::pvh, Entry::linux64, Entry::decompressor}) {
    MappedRam ram;
    const auto state = load_linux(ram, config(entry));
    ASSERT_FALSE(state);
    EXPECT_STREQ(state.error().reason, "the kernel wants more RAM than there is");
  }
}

INSTANTIATE_TEST_SUITE_P(Each, DebianKernel, ::testing::ValuesIn(kernels),
                         [](const auto& test) { return std::to_string(test.index); });

}  // namespace
}  // namespace linux_loader

int main(int argc, char** argv) {
  // Before GoogleTest makes the tests of them.
  for (int i = 1; i < argc; ++i) {
    if (argv[i][0] != '-') linux_loader::kernels.emplace_back(argv[i]);
  }
  if (linux_loader::kernels.empty()) {
    std::fprintf(stderr, "usage: kernels_lab VMLINUZ...\n");
    return 2;
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
