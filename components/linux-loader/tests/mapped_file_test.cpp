// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "linux_loader/mapped_file.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

namespace linux_loader {
namespace {

class MappedFileTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_NE(::mkdtemp(folder_.data()), nullptr); }
  void TearDown() override {
    std::remove(path().c_str());
    ::rmdir(folder_.c_str());
  }
  [[nodiscard]] std::string path() const { return folder_ + "/file"; }
  void expect_error(const char* file, const char* operation, int code) {
    const auto mapped = MappedFile::open(file);
    ASSERT_FALSE(mapped);
    EXPECT_STREQ(mapped.error().operation, operation);
    EXPECT_EQ(mapped.error().code, code);
  }

  std::string folder_ = "/tmp/mapped_file_test.XXXXXX";
};

TEST_F(MappedFileTest, HasTheFilesBytes) {
  std::ofstream(path()) << std::string(10000, 'x') << "end";
  auto mapped = MappedFile::open(path().c_str());
  ASSERT_TRUE(mapped);
  MappedFile moved = std::move(mapped.value());
  ASSERT_EQ(moved.bytes().size(), 10003u);
  EXPECT_EQ(moved.bytes()[0], std::byte{'x'});
  EXPECT_EQ(moved.bytes()[10002], std::byte{'d'});
  EXPECT_TRUE(mapped.value().bytes().empty());
}

TEST_F(MappedFileTest, AnEmptyFileHasNone) {
  std::ofstream(path()).flush();
  EXPECT_TRUE(MappedFile::open(path().c_str()).value().bytes().empty());
}

TEST_F(MappedFileTest, SaysWhatCannotBeMapped) {
  expect_error(path().c_str(), "open", ENOENT);
  expect_error(folder_.c_str(), "map what isn't a regular file", EINVAL);
  ASSERT_EQ(::mkfifo(path().c_str(), 0600), 0);
  expect_error(path().c_str(), "map what isn't a regular file", EINVAL);
}

}  // namespace
}  // namespace linux_loader
