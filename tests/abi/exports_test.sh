#!/bin/sh
# exports_test.sh LIBRARY EXPORTS_MAP HEADER: the library's symbols, the list in lib/abi and the header say the same.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
nm -D --defined-only "$1" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort -u > "$work/library"
sed -n 's/^ *\(dsv_[a-z0-9_]*\);$/\1/p' "$2" | sort -u > "$work/list"
tr '\n' ' ' < "$3" | grep -o 'DSV_API [^;(]*dsv_[a-z0-9_]*(' | sed 's/.*\(dsv_[a-z0-9_]*\)($/\1/' | sort -u > "$work/header"
[ -s "$work/list" ] || { echo "$2 lists no symbols"; exit 1; }
diff "$work/list" "$work/library" || { echo "the library exports something else than $2 lists"; exit 1; }
diff "$work/list" "$work/header" || { echo "$3 declares something else than $2 lists"; exit 1; }
