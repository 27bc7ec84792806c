// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// main() of a fuzz target where libFuzzer isn't: replay FILE... runs each input once. A FILE named
// *.inputs holds one a line, in hex, and lines that start with # as remarks; any other is an input
// itself, as libFuzzer leaves it.
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" [[gnu::weak]] int LLVMFuzzerInitialize(int* argc, char*** argv);

namespace {

using Input = std::vector<std::uint8_t>;

void run(const Input& input, const std::string& name) {
  std::printf("%s, %zu bytes\n", name.c_str(), input.size());
  std::fflush(stdout);  // before it may end us
  (void)LLVMFuzzerTestOneInput(input.data(), input.size());
}

bool from_hex(std::string_view text, Input& input) {
  constexpr std::string_view digits = "0123456789abcdef";
  if (text.size() % 2 != 0) return false;
  for (std::size_t at = 0; at < text.size(); at += 2) {
    const std::size_t high = digits.find(text[at]);
    const std::size_t low = digits.find(text[at + 1]);
    if (high == std::string_view::npos || low == std::string_view::npos) return false;
    input.push_back(static_cast<std::uint8_t>(high << 4 | low));
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (LLVMFuzzerInitialize != nullptr) LLVMFuzzerInitialize(&argc, &argv);
  int inputs = 0;
  for (int at = 1; at < argc; ++at) {
    const std::string name = argv[at];
    std::ifstream file(name, std::ios::binary);
    if (!file) {
      std::fprintf(stderr, "can't read %s\n", name.c_str());
      return 1;
    }
    if (!name.ends_with(".inputs")) {
      run(Input(std::istreambuf_iterator<char>(file), {}), name);
      ++inputs;
      continue;
    }
    int number = 0;
    for (std::string line; std::getline(file, line);) {
      ++number;
      if (line.starts_with("#")) continue;
      const std::string where = name + ":" + std::to_string(number);
      Input input;
      if (!from_hex(line, input)) {
        std::fprintf(stderr, "%s: not hex\n", where.c_str());
        return 1;
      }
      run(input, where);
      ++inputs;
    }
  }
  std::printf("%d inputs ran\n", inputs);
  return inputs == 0;  // a test that tests nothing is none
}
