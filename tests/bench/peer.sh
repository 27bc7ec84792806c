#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# peer.sh VMM QEMU-FOLDER KERNEL INITRAMFS ROUNDS: in the lab, boots a kernel by vmm-reference and by QEMU
# in turn: ours as a KVM and as a Xen guest, QEMU's as a KVM guest. A line a boot: who, seconds from exec
# to the guest's init, KiB that are resident beside the guest's RAM.
vmm=$1 qemu=$2 kernel=$3 initramfs=$4 rounds=$5
mib=512
cmdline='console=ttyS0 quiet noxsave panic=-1'

now() { cut -d ' ' -f 1 /proc/uptime; }
# What is resident of process $1 but its mappings of all the guest's RAM.
beside_ram() {
  awk -v ram=$((mib * 1024)) '
    /^[0-9a-f]+-[0-9a-f]+ / { next }
    $1 == "Size:" { size = $2 }
    $1 == "Rss:" && size < ram / 4 { sum += $2 }
    END { print sum }' "/proc/$1/smaps"
}
one() {
  name=$1 line=
  shift
  : >/tmp/console
  # A pipe, as looking again and again would take time from what is measured.
  start=$(now)
  "$@" </dev/null >/tmp/pipe 2>&1 &
  pid=$!
  exec 3</tmp/pipe
  until [ "${line#*bench: init}" != "$line" ]; do
    read -r line <&3 || { echo "$name ended:" >&2; cat /tmp/console >&2; exit 1; }
    echo "$line" >>/tmp/console
  done
  end=$(now)
  echo "$name $start $end $(beside_ram "$pid")" | awk '{ print $1, $3 - $2, $4 }'
  kill -9 "$pid"
  wait "$pid" 2>/dev/null
  exec 3<&-
}
mkfifo /tmp/pipe
for round in $(seq "$rounds"); do
  for boot in native pvh; do
    one "ours-$boot" "$vmm" --kernel "path=$kernel" --initramfs "path=$initramfs" --memory "size_mib=$mib" \
      --vcpus num=1 --boot "$boot" --cmdline "$cmdline"
  done
  one qemu "$qemu/usr/bin/qemu-system-x86_64" -L "$qemu/usr/share/qemu" -L /usr/share/seabios -accel kvm \
    -M q35 -cpu host -smp 1 -m "$mib" -nodefaults -no-user-config -display none -serial stdio -kernel "$kernel" \
    -initrd "$initramfs" -append "$cmdline"
done
exit 0  # not the status of what was killed
