#!/usr/bin/env bash
# The bundled checkpoint, dequantised, gives transformers the logits of model.py.  transformers.sh NANO
set -euo pipefail
python=${DSV_PYTHON:-python3}
if [[ ! -f $1/checkpoint/model.safetensors.index.json ]]; then
  echo "SKIPPED: $1/checkpoint holds no weights"
  exit 77
fi
if ! "$python" -c 'import transformers.models.deepseek_v32, torch, tokenizers, safetensors' 2>/dev/null; then
  echo "SKIPPED: $python lacks PyTorch or a transformers that knows DeepSeek-V3.2 (samples/nano/requirements.txt)"
  exit 77
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$1"
PYTHONDONTWRITEBYTECODE=1 "$python" dequantize.py checkpoint "$folder" --check
