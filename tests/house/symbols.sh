#!/usr/bin/env bash
# The library never ends the process, prints, reads the environment, starts programs, or runs code before main or at
# exit. That it does not end by std::terminate, which every noexcept function can, is shown by fault_test.
# symbols.sh OBJECT_LIST LIBRARY
set -euo pipefail
forbidden='abort|exit|_exit|_Exit|quick_exit|raise|kill|signal|sigaction|pthread_exit|pthread_kill|longjmp|__longjmp_chk|'
forbidden+='__assert_fail|printf|__printf_chk|vprintf|fprintf|__fprintf_chk|vfprintf|dprintf|puts|fputs|fputc|fwrite|'
forbidden+='putchar|perror|write|syslog|stdout|stderr|getenv|secure_getenv|setenv|putenv|setlocale|system|popen|fork|'
forbidden+='posix_spawn|exec[a-z]+|atexit|__cxa_atexit|at_quick_exit|_ZSt4cout|_ZSt4cerr|_ZSt4clog'
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
# The same of all that is linked in.
found=$(nm -D --undefined-only "$2" | awk '{ sub(/@.*/, "", $2); print $2 }' | grep -xE "$forbidden" || true)
[[ -z $found ]] || { echo "${2##*/} uses" $found; rc=1; }
[[ $(nm -D --undefined-only "$2" | wc -l) -gt 20 ]] || { echo "$2 has no symbols"; rc=1; }
((rc == 0)) && echo "${#objects[@]} objects"
exit $rc
