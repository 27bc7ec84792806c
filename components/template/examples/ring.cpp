// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
#include <cstdio>

#include "vmm_template/doorbell.hpp"

struct MyVmm {
  vmm_base::Result<void> rang(std::uint64_t times) {
    std::printf("rang %lu times\n", times);
    return vmm_base::success();
  }
};

int main() {
  MyVmm vmm;
  vmm_template::Doorbell doorbell(vmm);
  return doorbell.write(1) && doorbell.rung() == 1 ? 0 : 1;
}
