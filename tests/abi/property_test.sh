#!/usr/bin/env bash
# property_test.sh DSV PROPERTY_TEST CONFIG SEQUENCES [PROCESSES]: on a random checkpoint of that config.json, the
# sequences shared by that many processes.
set -euo pipefail
dsv=$1 property_test=$2 config=$3 sequences=$4 processes=${5:-1}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$dsv" synth --config "$config" --out "$folder/model" >/dev/null
for ((i = 0; i < processes; ++i)); do
  "$property_test" "$folder/model" $((sequences / processes)) $((1 + i * 1000000)) &
  pids[i]=$!
done
rc=0
for pid in "${pids[@]}"; do wait "$pid" || rc=1; done
exit $rc
