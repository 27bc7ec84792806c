#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# zero_cost.sh PROGRAM: instructions in user space of one call, by the wrapper and by ioctl(2), for
# each pair of zero_cost.cpp. Fails where the wrapper's are more than 1.02 of the other's; what goes
# through the variant of match(), which is not free, may have 2.2. Status 77: skipped.
set -euo pipefail
command -v valgrind >/dev/null || { echo 'skipped: there is no valgrind'; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

status=0
valgrind --quiet --tool=callgrind --callgrind-out-file="$folder/out" "$1" >"$folder/said" 2>&1 || status=$?
if ((status != 0)); then
  ((status != 77)) || echo -n 'skipped: '
  cat "$folder/said"
  exit "$status"
fi

# Two runs of N and 2N calls differ by N calls and nothing else.
awk '
  /^desc: Trigger: Client Request: / { name = $5; side = $6; calls = $7; next }
  /^summary: / && name != "" { count[name, side, calls] = $2; if (!(name in seen)) { seen[name] = 1; order[++pairs] = name }; name = "" }
  END {
    printf "%-20s %8s %8s %6s\n", "a call of", "wrapper", "ioctl(2)", "ratio"
    for (i = 1; i <= pairs; ++i) {
      name = order[i]
      for (side = 0; side != 2; ++side) {
        which = side ? "raw" : "wrapper"
        if (!((name, which, 200) in count)) { print name ": not counted"; bad = 1 }
        per_call[side] = (count[name, which, 200] - count[name, which, 100]) / 100
      }
      ratio = per_call[1] > 0 ? per_call[0] / per_call[1] : 99
      over = ratio > (name ~ /^run_match_/ ? 2.2 : 1.02)
      printf "%-20s %8.2f %8.2f %6.3f%s\n", name, per_call[0], per_call[1], ratio, over ? "  too many" : ""
      bad = bad || over
    }
    if (pairs < 8) { print "only " pairs + 0 " pairs were counted"; bad = 1 }
    exit bad
  }' $(ls -v "$folder"/out.*)
