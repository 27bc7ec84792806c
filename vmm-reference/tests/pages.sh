#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# That what is installed is the program and its pages, which tell of each option that --help does, as
# does its README; that man(1) finds and reads its page, and that bash completes what it should.
#
# vmm-reference/tests/pages.sh BUILD_FOLDER README
set -uo pipefail
readme=$2
checks=0 wrong=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
check() {
  ((++checks))
  "${@:2}" && return
  echo "FAILED: $1"
  ((++wrong))
}

check 'it installs' cmake --install "$1" --component vmm-reference --prefix "$work/prefix" >/dev/null
vmm=$work/prefix/bin/vmm-reference
mapfile -t options < <("$vmm" --help | sed -n 's/^  \(-., \)\?\(--[a-z-]*\).*/\2/p')
check "there are ${#options[@]} options" test "${#options[@]}" -gt 15
page=$(MANPATH=$work/prefix/share/man MANWIDTH=200 man --warnings --encoding=ascii vmm-reference 2>&1)
check 'man(1) finds its page and reads it' grep -q '^EXIT STATUS' <<<"$page"
check "its warnings: $page" bash -c '! grep -iE "warning|error:" <<<"$1"' - "$page"
check 'whatis(1) finds it' lexgrog "$work/prefix/share/man/man1/vmm-reference.1"
for option in "${options[@]}"; do
  check "$option is on the man page" grep -qE -- "^ +(-., )?$option( |\$)" <<<"$page"
  [[ $option == --help ]] || check "$option is in README.md" grep -qE -- "$option\b" "$readme"
done
check 'not wider than a terminal of 100 columns' bash -c '! "$1" --help | grep -E "^.{101}"' - "$vmm"

# completes LINE WORD...: these are offered at its end, and nothing else.
# shellcheck source=/dev/null
source "$work/prefix/share/bash-completion/completions/vmm-reference"
touch "$work/vmlinuz" "$work/vmlinux" && mkdir -p "$work/0000:00:10.0" "$work/0000:00:11.0"
completes() {
  local -a wanted=("${@:2}") words
  COMP_LINE=$1 COMP_POINT=${#1}
  # As readline does: "=" and ":" are words.
  mapfile -t COMP_WORDS < <(sed 's/\([=:]\+\)/\n\1\n/g; s/ \+/\n/g' <<<"$1" | grep . || true)
  [[ $1 != *[[:blank:]] ]] || COMP_WORDS+=('')
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
  _vmm_reference
  ((++checks))
  [[ $(printf '%s\n' "${COMPREPLY[@]}" | sort) == "$(printf '%s\n' "${wanted[@]}" | sort)" ]] && return
  echo "FAILED: '$1' completes to: ${COMPREPLY[*]}"
  ((++wrong))
}
completes 'vmm-reference --' "${options[@]}"
completes 'vmm-reference --boot ' pvh hvm native
completes 'vmm-reference --boot=n' native
completes 'vmm-reference guest.elf --xen-timer ' kernel userspace irqfd delegated spinning moving auto all
completes 'vmm-reference guest.elf --xen-timer kernel,ir' kernel,irqfd
completes 'vmm-reference --restored-time st' stopped
completes "vmm-reference --kernel $work/vml" "$work/vmlinuz" "$work/vmlinux"
completes "vmm-reference --kernel path=$work/vmlinuz" "$work/vmlinuz"
completes "vmm-reference --initramfs=path=$work/vmlinuz" "$work/vmlinuz"
completes "vmm-reference $work/vmlinuz" "$work/vmlinuz"
completes "vmm-reference --vfio $work/0000:00:1" 10.0 11.0
completes 'vmm-reference --vcpus ' ''
echo "$((checks - wrong)) of $checks checks passed"
((wrong == 0))
