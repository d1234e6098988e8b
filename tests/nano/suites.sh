#!/usr/bin/env bash
# The quick suites through `dsv eval`, in `official`, against thresholds.txt.  suites.sh DSV CHECKPOINT [OPTION...]
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
if [[ ! -f $2/model.safetensors.index.json ]]; then
  echo "SKIPPED: $2 holds no weights"
  exit 77
fi
table=$("$1" eval "$here/quick.jsonl" --model "$2" --precision official "${@:3}")
echo "$table"
awk '
  FNR == NR { if ($1 !~ /^#/ && NF) least[$1] = $2; next }
  $1 in least {
    seen[$1] = 1
    if ($4 < least[$1]) { print "FAILED: " $1 ": " $4 "%, not " least[$1] "%"; bad = 1 }
  }
  END {
    for (suite in least) if (!(suite in seen)) { print "FAILED: no cases of " suite; bad = 1 }
    exit bad
  }' "$here/thresholds.txt" <(echo "$table")
