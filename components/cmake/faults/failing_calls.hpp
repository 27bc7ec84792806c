// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// System calls, threads and allocations that fail on demand: a test program made of
// failing_calls.cpp, too, has its own eventfd(), mmap(), timerfd_settime(), operator new, … in
// place of the C and C++ libraries'. What glibc calls itself doesn't come by here.
//
//   failing::next(3, EMFILE);            // the third of those that this process makes from now on
//   … the code under test …
//   const failing::Seen seen = failing::none();  // how many there were, and which one failed
//   … failing::held() == before …                // nothing has leaked
//
// With FAILING_CALLS_NONE, as with a sanitizer, which has these in its own place, nothing fails or
// is counted: for tests that make KvmDouble's ioctls fail.
//
// x86-64.
#pragma once

#include <cstddef>

namespace failing {

enum class Of { calls, allocations };

struct Seen {
  std::size_t calls = 0;
  const char* failed = nullptr;  // the name of the call that was made to fail
};

#ifndef FAILING_CALLS_NONE
// Of all threads' from now on. An allocation that fails throws std::bad_alloc.
void next(std::size_t nth, int code, Of of = Of::calls) noexcept;
Seen none() noexcept;
#endif

// What this process has of the language's allocations and of mmap()'s, and hasn't given back: of
// mapped memory only what this program's own code, or a library's, maps by that name.
struct Held {
  std::size_t blocks = 0;
  std::size_t mapped = 0;  // bytes
  bool operator==(const Held&) const = default;
};
// What this thread calls meanwhile isn't the code under test.
class Unseen {
 public:
  Unseen() noexcept;
  Unseen(const Unseen&) = delete;
  Unseen& operator=(const Unseen&) = delete;
  ~Unseen();
};

#ifdef FAILING_CALLS_NONE
inline Held held() noexcept { return {}; }
inline Unseen::Unseen() noexcept = default;
inline Unseen::~Unseen() = default;
#else
Held held() noexcept;
#endif

}  // namespace failing
