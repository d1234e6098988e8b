#!/usr/bin/env bash
# record.sh check|write LIBRARY SOURCE_DIR: the ABI of libdsv.so (with debug information) against the one in
# tests/abi/record: functions and structs as abidw sees them, and the constants of dsv.h, which are in no binary.
set -euo pipefail
action=$1 library=$2 source=$3
record=$source/tests/abi/record header=$source/include/dsv/dsv.h
for tool in abidw abidiff; do
  command -v $tool >/dev/null || { echo "SKIPPED: $tool is not installed (Debian: abigail-tools)"; exit 77; }
done

constants() {
  grep -oE '\bDSV_[A-Z0-9_]+ = -?[0-9]+' "$header" | sort
}

# interface OUT: what the library offers, and nothing of how it is made.
interface() {
  abidw --headers-dir "$source/include/dsv" --drop-private-types --no-corpus-path --no-comp-dir-path --no-show-locs \
    --exported-interfaces-only --no-elf-needed --out-file "$1" "$library"
  sed -i -E "s|path='[^']*/(lib/abi/[a-z]+\.cpp)'|path='\1'|" "$1"
}

case $action in
  write)
    interface "$record/libdsv.abi"
    constants >"$record/constants.txt"
    ;;
  check)
    [[ -s $record/libdsv.abi && -s $record/constants.txt ]] || { echo "FAILED: $record is incomplete"; exit 1; }
    readelf -SW "$library" | grep -q '\.debug_info' || { echo "SKIPPED: $library has no debug information"; exit 77; }
    now=$(mktemp -d)
    trap 'rm -rf "$now"' EXIT
    interface "$now/libdsv.abi"
    constants >"$now/constants.txt"
    rc=0
    abidiff --harmless "$record/libdsv.abi" "$now/libdsv.abi" || rc=$?
    diff "$record/constants.txt" "$now/constants.txt" || rc=$((rc | 4))
    if ((rc & 3)); then
      echo "FAILED: abidiff could not compare (exit $rc)"
    elif ((rc != 0)); then
      echo 'FAILED: the ABI is not the recorded one. If all that changed is that functions, constants or, at the end of'
      echo 'structs that begin with struct_size, fields were added, programs go on working: write the record anew with'
      echo '  bash tests/abi/record.sh write build/release/lib/libdsv.so .'
      echo 'Otherwise programs that were built against it would break: take the change back, or raise DSV_ABI_VERSION in'
      echo 'dsv.h (the soname follows) and then write the record anew.'
    fi
    exit $((rc != 0))
    ;;
esac
