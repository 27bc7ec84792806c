// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What a fuzz target says of what must hold. It ends the program, which libFuzzer and ctest both
// take for a failure; NDEBUG makes no difference.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace fuzz {

[[noreturn]] inline void fail(const char* what, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: doesn't hold: %s\n", file, line, what);
  std::abort();
}

}  // namespace fuzz

#define MUST(...) ((__VA_ARGS__) ? (void)0 : fuzz::fail(#__VA_ARGS__, __FILE__, __LINE__))
