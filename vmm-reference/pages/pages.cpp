// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Writes the pages that are installed beside the program into a folder: pages FOLDER.
#include "pages.hpp"

#include <cstdio>
#include <fstream>
#include <string>

#include "command_line.hpp"

int main(int argc, char** argv) {
  using namespace vmm_reference;
  if (argc != 2) return 2;
  const CommandLine line;
  const auto write = [&](const char* name, const std::string& page) {
    std::ofstream file(std::string(argv[1]) + "/" + name);
    file << page << std::flush;
    if (!file) std::fprintf(stderr, "pages: can't write %s/%s\n", argv[1], name);
    return file.good();
  };
  return write("vmm-reference.1", man_page(line.app())) &&
                 write("vmm-reference", bash_completion(line.app()))
             ? 0
             : 1;
}
