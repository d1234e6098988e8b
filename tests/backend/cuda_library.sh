#!/bin/sh
# cuda_library.sh LIBRARY: it exports one symbol and needs no CUDA library to load.
set -eu
exports=$(nm -D --defined-only "$1" | awk '$2 != "A" { print $3 }')
[ "$exports" = dsv_backend_library ] || { echo "it exports: $exports"; exit 1; }
needed=$(readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
for library in $needed; do
  case $library in
    libc.so.* | libm.so.* | libstdc++.so.* | libgcc_s.so.* | ld-linux*) ;;
    *) echo "it needs $library"; exit 1 ;;
  esac
done
