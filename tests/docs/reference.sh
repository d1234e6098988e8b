#!/bin/sh
# reference.sh DOXYGEN SOURCE_DIR OUT: the C API reference in OUT/html; a warning is an error.
set -eu
mkdir -p "$3"
cd "$2"
{ cat packaging/Doxyfile; echo "OUTPUT_DIRECTORY = $3"; } | "$1" -
# Every function of the header has its entry.
for name in $(sed -n 's/^DSV_API .*[ *]\(dsv_[a-z_]*\)(.*/\1/p' include/dsv/dsv.h); do
  grep -q "$name" "$3/html/dsv_8h.html" || { echo "the reference does not have $name"; exit 1; }
done
