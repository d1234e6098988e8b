#!/usr/bin/env bash
# bench.sh CHECKPOINT (NAME ALLOWED_US COMMAND)...: each command takes CHECKPOINT and prints "<events> <ns per event>". The
# first is what the others are compared with. Three turns, because the machine is not ours alone; the best one counts.
set -euo pipefail
checkpoint=$1
shift
declare -A best
for turn in 1 2 3; do
  for ((i = 1; i <= $#; i += 3)); do
    name=${*:i:1} command=${*:i+2:1}
    read -r events ns < <($command "$checkpoint")
    [[ -n ${ns:-} ]] || { echo "$name failed"; exit 1; }
    if [[ -z ${best[$name]:-} ]] || awk "BEGIN { exit !($ns < ${best[$name]}) }"; then best[$name]=$ns; fi
  done
done
echo "us per event, $events events polled after the work is done; median of 20 rounds, best of 3 runs"
for ((i = 1; i <= $#; i += 3)); do
  awk -v name="${*:i:1}" -v allowed="${*:i+1:1}" -v ns="${best[${*:i:1}]}" -v base="${best[$1]}" 'BEGIN {
    over = (ns - base) / 1000
    printf "%-8s %6.2f", name, ns / 1000
    if (allowed > 0) printf "   over C %6.2f   allowed %d   %s", over, allowed, over <= allowed ? "ok" : "TOO SLOW"
    print ""
  }'
done
