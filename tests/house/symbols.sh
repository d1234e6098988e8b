#!/usr/bin/env bash
# The library never ends the process, prints, reads the environment or runs code before main.  symbols.sh OBJECT_LIST
set -euo pipefail
forbidden='abort|exit|_exit|_Exit|quick_exit|raise|kill|signal|__assert_fail|printf|__printf_chk|vprintf|fprintf|'
forbidden+='__fprintf_chk|vfprintf|puts|fputs|fputc|putchar|perror|stdout|stderr|getenv|secure_getenv|system|'
forbidden+='_ZSt4cout|_ZSt4cerr|_ZSt4clog'
mapfile -t objects < <(grep . "$1")
((${#objects[@]} > 10)) || { echo "only ${#objects[@]} objects listed"; exit 1; }
rc=0
for object in "${objects[@]}"; do
  [[ -f $object ]] || { echo "missing object: $object"; rc=1; continue; }
  found=$(nm -u "$object" | awk '$1 == "U" { print $2 }' | grep -xE "$forbidden" || true)
  [[ -z $found ]] || { echo "${object##*CMakeFiles/} uses" $found; rc=1; }
  if readelf -SW "$object" | grep -qE '\.(init_array|ctors)'; then
    echo "${object##*CMakeFiles/} has static constructors"
    rc=1
  fi
done
((rc == 0)) && echo "${#objects[@]} objects"
exit $rc
