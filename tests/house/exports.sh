#!/usr/bin/env bash
# libdsv exports what its list says, and nothing else.  exports.sh LIBRARY EXPORTS_MAP
set -euo pipefail
want=$(grep -oE 'dsv_[a-z0-9_]+' "$2" | sort -u)
have=$(nm -D --defined-only "$1" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort -u)
[[ -n $want && -n $have ]] || { echo "no symbols found"; exit 1; }
diff <(echo "$want") <(echo "$have") && echo "$(wc -l <<<"$have") symbols"
