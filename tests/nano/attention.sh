#!/usr/bin/env bash
# The training's attention kernels on the CPU, by Triton's interpreter.  attention.sh NANO
set -euo pipefail
python=${DSV_PYTHON:-python3}
if ! "$python" -c 'import torch, triton' 2>/dev/null; then
  echo "SKIPPED: $python lacks PyTorch or Triton (samples/nano/requirements.txt)"
  exit 77
fi
export TRITON_INTERPRET=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$1
exec "$python" "$(dirname "${BASH_SOURCE[0]}")/attention_test.py"
