#!/usr/bin/env bash
# The recipe in one command: trains, then exports.  recipe.sh DIR [train.py's options]
# It takes 22 minutes: its stages are given in seconds, 1,190 in all, and compiling some 100. Made for one H100 or H200.
# Cut it at any minute, or pass --limit 480 for slices of 8 minutes: the same command goes on. DIR/checkpoint is the
# result, DIR/state the weights in files below 16 MB, the log and the curves. DSV_PYTHON: another interpreter than python3.
set -euo pipefail
out=$(realpath -m "$1")
shift
cd "$(dirname "${BASH_SOURCE[0]}")"
python=${DSV_PYTHON:-python3}
"$python" train.py --out "$out/state" "$@"
if grep -q '"finished": true' "$out/state/state.json"; then
  "$python" export.py "$out/state" "$out/checkpoint"
fi
