#!/usr/bin/env bash
# The README's C program is samples/c/quickstart.c, and it runs.  quickstart.sh DSV QUICKSTART SOURCE_DIR
set -euo pipefail
diff <(awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' "$3/README.md") "$3/samples/c/quickstart.c"
model=$3/samples/nano/checkpoint
if [[ ! -f $model/config.json ]]; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  model=$folder/model
  "$1" synth --preset tiny --out "$model"
fi
"$2" "$model" >/dev/null
if "$2" "$3/no-such-folder" 2>/dev/null; then echo "a missing checkpoint must fail"; exit 1; fi
