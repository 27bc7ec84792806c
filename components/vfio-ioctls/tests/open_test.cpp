// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What is said when a device can't be had, on trees of files that look like /sys and /dev.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/vfio.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <type_traits>
#include <vector>

#include "print.hpp"
#include "scripted_kernel.hpp"
#include "sysfs.hpp"
#include "vfio_ioctls/group.hpp"
#include "vfio_ioctls/iommufd.hpp"

namespace vfio_ioctls {
namespace {

namespace fs = std::filesystem;

class FakeRoot : public testing::Test {
 protected:
  FakeRoot() {
    std::string name = testing::TempDir() + "/vfio-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    ::chmod(name.c_str(), 0755);
    root = name;
    device = root + "/sys/bus/pci/devices/0000:00:10.0";
  }
  ~FakeRoot() override { fs::remove_all(root); }

  void folder(const std::string& path) const { fs::create_directories(root + path); }
  void file(const std::string& path) const {
    fs::create_directories(fs::path(root + path).parent_path());
    std::ofstream(root + path).flush();
  }
  void link(const std::string& path, const std::string& target) const {
    fs::create_directories(fs::path(root + path).parent_path());
    fs::create_symlink(target, root + path);
  }
  // The device, with its group and driver.
  void make_device(const char* driver = "vfio-pci") const {
    folder("/sys/bus/pci/devices/0000:00:10.0");
    link("/sys/bus/pci/devices/0000:00:10.0/iommu_group", "../../../../kernel/iommu_groups/26");
    if (driver != nullptr) {
      link("/sys/bus/pci/devices/0000:00:10.0/driver",
           std::string("../../../bus/pci/drivers/") + driver);
    }
  }
  // One of group 26.
  void member(const std::string& name, const char* driver) const {
    const std::string at = "/sys/kernel/iommu_groups/26/devices/" + name;
    folder(at);
    if (driver != nullptr) link(at + "/driver", std::string("../../../drivers/") + driver);
  }

  std::string root;
  std::string device;
};

// The error's kind, and what it says below the fake root.
template <class T>
std::pair<Missing, std::string> said(const OpenResult<T>& result, const std::string& root) {
  if (result) return {Missing::nothing, "no error"};
  std::string message = result.error().message();
  for (auto at = message.find(root); at != std::string::npos; at = message.find(root)) {
    message.erase(at, root.size());
  }
  return {result.error().missing, message};
}
using Said = std::pair<Missing, std::string>;

TEST_F(FakeRoot, NoSuchDevice) {
  EXPECT_EQ(said(Group::open(device, root), root),
            Said(Missing::device, "/sys/bus/pci/devices/0000:00:10.0: there is no such device"));
}

TEST_F(FakeRoot, NoIommuGroup) {
  folder("/sys/bus/pci/devices/0000:00:10.0");
  const Said expected(Missing::iommu_group,
                      "/sys/bus/pci/devices/0000:00:10.0/iommu_group: the device is in no IOMMU "
                      "group; the machine has no IOMMU, or it is off");
  EXPECT_EQ(said(Group::open(device, root), root), expected);
  EXPECT_EQ(said(Iommufd(vmm_base::UniqueFd()).open_device(device, root), root), expected);
  for (const char* odd : {"../iommu_groups/", "../iommu_groups/x", "../iommu_groups/26x",
                          "../iommu_groups/-1", "../iommu_groups/99999999999"}) {
    fs::remove(device + "/iommu_group");
    link("/sys/bus/pci/devices/0000:00:10.0/iommu_group", odd);
    EXPECT_EQ(said(Group::open(device, root), root), expected) << odd;
  }
}

TEST_F(FakeRoot, NotBoundToVfio) {
  make_device("e1000e");
  const Said expected(Missing::vfio_driver,
                      "/sys/bus/pci/devices/0000:00:10.0/driver: bound to e1000e, not to vfio-pci");
  EXPECT_EQ(said(Group::open(device, root), root), expected);
  EXPECT_EQ(said(Iommufd(vmm_base::UniqueFd()).open_device(device, root), root), expected);
}

TEST_F(FakeRoot, BoundToNothing) {
  make_device(nullptr);
  EXPECT_EQ(said(Group::open(device, root), root),
            Said(Missing::vfio_driver,
                 "/sys/bus/pci/devices/0000:00:10.0/driver: bound to no driver, not to vfio-pci"));
}

TEST_F(FakeRoot, NoFileForTheGroup) {
  make_device("mlx5_vfio_pci");
  EXPECT_EQ(said(Group::open(device, root), root),
            Said(Missing::kernel,
                 "/dev/vfio/26: there is no file for the group, though its device has a VFIO "
                 "driver"));
}

TEST_F(FakeRoot, NoPermission) {
  make_device();
  file("/dev/vfio/26");
  file("/dev/vfio/vfio");
  file("/dev/iommu");
  for (const char* path : {"/dev/vfio/26", "/dev/vfio/vfio", "/dev/iommu"}) {
    ASSERT_EQ(::chmod((root + path).c_str(), 0), 0);
  }
  ::setfsuid(65534);  // Of root, this thread becomes nobody where files are concerned.
  const auto group = said(Group::open(device, root), root);
  const auto container = said(Container::open(root + "/dev/vfio/vfio"), root);
  const auto iommufd = said(Iommufd::open(root + "/dev/iommu"), root);
  ::setfsuid(::geteuid());
  const std::string why = ": Permission denied: this user needs to read and write it";
  EXPECT_EQ(group, Said(Missing::permission, "/dev/vfio/26" + why));
  EXPECT_EQ(container, Said(Missing::permission, "/dev/vfio/vfio" + why));
  EXPECT_EQ(iommufd, Said(Missing::permission, "/dev/iommu" + why));
}

TEST_F(FakeRoot, NotVfioAtAll) {
  EXPECT_EQ(said(Container::open(root + "/dev/vfio/vfio"), root),
            Said(Missing::kernel,
                 "/dev/vfio/vfio: this kernel has no VFIO containers, or its module vfio isn't "
                 "loaded"));
  EXPECT_EQ(
      said(Iommufd::open(root + "/dev/iommu"), root),
      Said(Missing::kernel, "/dev/iommu: this kernel has no iommufd, or its module isn't loaded"));
  file("/dev/vfio/vfio");
  EXPECT_EQ(said(Container::open(root + "/dev/vfio/vfio"), root),
            Said(Missing::nothing, "VFIO_GET_API_VERSION(0x0): Inappropriate ioctl for device"));
}

TEST_F(FakeRoot, AnyOtherErrorHasFileAndReason) {
  folder("/dev/vfio/vfio");
  EXPECT_EQ(said(Container::open(root + "/dev/vfio/vfio"), root),
            Said(Missing::nothing, "/dev/vfio/vfio: Is a directory"));
}

TEST_F(FakeRoot, NoFileOfTheDevicesOwn) {
  make_device();
  const Iommufd iommufd{vmm_base::UniqueFd()};
  EXPECT_EQ(said(iommufd.open_device(device, root), root),
            Said(Missing::kernel,
                 "/sys/bus/pci/devices/0000:00:10.0/vfio-dev: this kernel has no files for VFIO "
                 "devices"));
  folder("/sys/bus/pci/devices/0000:00:10.0/vfio-dev/vfio7");
  EXPECT_EQ(
      said(iommufd.open_device(device, root), root),
      Said(Missing::kernel, "/dev/vfio/devices/vfio7: this kernel has no files for VFIO devices"));
  file("/dev/vfio/devices/vfio7");
  EXPECT_EQ(
      said(iommufd.open_device(device, root), root),
      Said(Missing::nothing, "VFIO_DEVICE_BIND_IOMMUFD(0x0): Inappropriate ioctl for device"));
}

TEST_F(FakeRoot, AGroupThatOpensIsAskedForItsStatusFirst) {
  make_device();
  file("/dev/vfio/26");
  auto group = Group::open(device, root);
  ASSERT_TRUE(group);
  EXPECT_EQ(group.value().number(), 26U);
  EXPECT_EQ(group.value().get_status().error(),
            (vmm_base::Error{"VFIO_GROUP_GET_STATUS", ENOTTY, 26}));
}

TEST_F(FakeRoot, AGroupGetsAContainerOnlyIfItIsViable) {
  make_device();
  member("0000:00:10.1", "e1000e");
  file("/dev/vfio/26");
  const auto group = Group::open(device, root);
  ASSERT_TRUE(group);
  std::uint32_t status = 0;
  std::vector<unsigned long> requests;
  kernel = [&](unsigned long request, void* argument) {
    requests.push_back(request);
    if (request == VFIO_GROUP_GET_STATUS) static_cast<vfio_group_status*>(argument)->flags = status;
    return 0;  // which is VFIO_API_VERSION, too
  };
  const auto container =
      Container::from_fd(vmm_base::UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)));
  ASSERT_TRUE(container);
  using Requests = std::vector<unsigned long>;
  requests.clear();
  const auto refused = group.value().set_container(container.value());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().missing, Missing::viability);
  EXPECT_EQ(refused.error().error, (vmm_base::Error{"VFIO_GROUP_SET_CONTAINER", EPERM, 26}));
  EXPECT_EQ(requests, (Requests{VFIO_GROUP_GET_STATUS}));
  requests.clear();
  status = VFIO_GROUP_FLAGS_VIABLE;
  EXPECT_TRUE(group.value().set_container(container.value()));
  EXPECT_TRUE(group.value().unset_container());
  EXPECT_EQ(requests, (Requests{VFIO_GROUP_GET_STATUS, VFIO_GROUP_SET_CONTAINER,
                                VFIO_GROUP_UNSET_CONTAINER}));
  kernel = nullptr;
}

TEST(ClosedHandles, FailByTheCallsName) {
  using vmm_base::Error;
  using vmm_base::UniqueFd;
  EXPECT_EQ(Container::from_fd(UniqueFd()).error(), (Error{"VFIO_GET_API_VERSION", EBADF, 0}));
  EXPECT_EQ(Iommufd(UniqueFd()).alloc_ioas().error(), (Error{"IOMMU_IOAS_ALLOC", EBADF, 0}));
  Iommufd from{UniqueFd()};
  const Iommufd to = std::move(from);
  EXPECT_EQ(from.fd(), -1);
  EXPECT_EQ(from.alloc_ioas().error().code, EBADF);
}

TEST_F(FakeRoot, DevicesInTheWayAreNamed) {
  member("0000:00:10.0", "vfio-pci");
  member("0000:00:10.1", nullptr);
  member("0000:00:10.2", "pci-stub");
  member("0000:00:10.3", "pcieport");
  EXPECT_EQ(devices_in_the_way(root, 26), "");
  member("0000:00:10.4", "e1000e");
  EXPECT_EQ(devices_in_the_way(root, 26), "0000:00:10.4 is bound to e1000e");
  member("0000:00:10.5", "ahci");
  const std::string both = devices_in_the_way(root, 26);
  EXPECT_NE(both.find("0000:00:10.4 is bound to e1000e"), std::string::npos);
  EXPECT_NE(both.find("0000:00:10.5 is bound to ahci"), std::string::npos);
  EXPECT_NE(both.find(", "), std::string::npos);
  EXPECT_EQ(devices_in_the_way(root, 27), "");
}

// One function of a VMM may return either kind, and take the other.
TEST(OpenError, AndErrorBecomeEachOther) {
  const vmm_base::Error plain{"VFIO_SET_IOMMU", EPERM, 3};
  const auto as_open = [&]() -> OpenResult<int> {
    VMM_CHECK([&]() -> vmm_base::Result<void> { return plain; }());
    return 0;
  };
  EXPECT_EQ(as_open().error().message(), plain.message());
  const auto as_plain = [&]() -> vmm_base::Result<int> {
    VMM_CHECK(as_open());
    return 0;
  };
  EXPECT_EQ(as_plain().error(), plain);
}

static_assert(!std::is_copy_constructible_v<Group> && !std::is_copy_constructible_v<Device> &&
              !std::is_copy_constructible_v<Ioas> && !std::is_copy_constructible_v<DmaMapping>);

}  // namespace
}  // namespace vfio_ioctls
