// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// peer CALL N: N times what kvm-ioctls/tests/zero_cost.cpp counts of ours, by Rust's kvm-ioctls on
// /dev/kvm, called by way of a pointer as there.
use kvm_bindings::{kvm_regs, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, Kvm, VcpuExit, VcpuFd, VmFd};

struct Machine {
    vm: VmFd,
    vcpu: VcpuFd,
    regs: kvm_regs,
    sum: u64,
}

fn nothing(_: &mut Machine) {}
fn check_extension(m: &mut Machine) {
    // It leaves an error to its caller; the others' are their own to find.
    let value = m.vm.check_extension_int(Cap::UserMemory);
    assert!(value >= 0);
    m.sum += value as u64;
}
fn set_regs(m: &mut Machine) {
    m.vcpu.set_regs(&m.regs).unwrap();
}
fn get_regs(m: &mut Machine) {
    m.sum += m.vcpu.get_regs().unwrap().rip;
}
fn run_io(m: &mut Machine) {
    match m.vcpu.run().unwrap() {
        VcpuExit::IoOut(_, data) => m.sum += u64::from(data[0]),
        exit => panic!("{exit:?}"),
    }
}

#[inline(never)]
fn repeat(call: fn(&mut Machine), m: &mut Machine, times: u32) {
    for _ in 0..times {
        call(m);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let kvm = Kvm::new().unwrap();
    let vm = kvm.create_vm().unwrap();
    // top: out %al,$0x10; jmp top
    let mut ram = vec![0u8; 0x12000];
    let start = ram.as_ptr().align_offset(0x1000);
    ram[start + 0x1000..start + 0x1004].copy_from_slice(&[0xe6, 0x10, 0xeb, 0xfc]);
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: 0x10000,
        userspace_addr: ram[start..].as_ptr() as u64,
    };
    // `ram` outlives the VM.
    unsafe { vm.set_user_memory_region(region).unwrap() };
    let vcpu = vm.create_vcpu(0).unwrap();
    let mut sregs = vcpu.get_sregs().unwrap();
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    vcpu.set_sregs(&sregs).unwrap();
    let mut regs = vcpu.get_regs().unwrap();
    regs.rip = 0x1000;
    regs.rflags = 2;
    vcpu.set_regs(&regs).unwrap();

    let mut machine = Machine { vm, vcpu, regs, sum: 0 };
    let call: fn(&mut Machine) = match arguments[1].as_str() {
        "check_extension" => check_extension,
        "set_regs" => set_regs,
        "get_regs" => get_regs,
        "run_io" => run_io,
        _ => nothing,
    };
    repeat(std::hint::black_box(call), &mut machine, arguments[2].parse().unwrap());
    std::process::exit(i32::from(machine.sum == 42));
}
