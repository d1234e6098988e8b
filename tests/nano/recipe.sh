#!/usr/bin/env bash
# A few steps of every stage on the CPU, cut and resumed, then export, `dsv eval` and dequantisation.  recipe.sh DSV NANO
set -euo pipefail
python=${DSV_PYTHON:-python3}
if ! "$python" -c 'import numpy, torch, tokenizers, safetensors, matplotlib' 2>/dev/null; then
  echo "SKIPPED: $python lacks PyTorch or what else samples/nano/requirements.txt names"
  exit 77
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$2"
export PYTHONDONTWRITEBYTECODE=1
export DSV_PYTHON=$python
train=(bash recipe.sh "$folder" --steps 2 --tokens 512 --scale 16 --workers 1)
"${train[@]}" --stages dense | tee "$folder/first"
grep -q 'run again to go on' "$folder/first"
"${train[@]}" | tee "$folder/second"
grep -q '^finished' "$folder/second"
[[ -s $folder/state/curves.png ]]
[[ -z $(find "$folder/state" -size +16M) ]]
[[ -z $(find "$folder/checkpoint" -size +16M) ]]
"$1" eval "$here/quick.jsonl" --model "$folder/checkpoint" --limit 2
"$python" dequantize.py "$folder/checkpoint" "$folder/plain"
[[ -s $folder/plain/model.safetensors ]]
