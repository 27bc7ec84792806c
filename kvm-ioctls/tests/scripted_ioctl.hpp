// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// In the unit tests ioctl() answers as a test says, while it says so.
#pragma once

#include <functional>

namespace kvm_ioctls {

// At most one at a time.
class ScriptedIoctl {
 public:
  // Returns what ioctl() does: negative with an errno.
  using Answer = std::function<int(int fd, unsigned long request, void* argument)>;
  explicit ScriptedIoctl(Answer answer);
  ScriptedIoctl(const ScriptedIoctl&) = delete;
  ScriptedIoctl& operator=(const ScriptedIoctl&) = delete;
  ~ScriptedIoctl();
};

}  // namespace kvm_ioctls
