# What the samples' tests share. "$1" is the dsv program, "$2" the source tree. `model` is the bundled checkpoint, or a
# random one while the tree has none; `trained` says which.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
die() { echo "FAILED: $*"; exit 1; }
trained=1 model=$2/samples/nano/checkpoint
if [[ ! -f $model/config.json ]]; then
  echo 'no bundled checkpoint: a random one stands in'
  trained=0 model=$work/model
  "$1" synth --preset tiny --out "$model" >&2
fi
# is_png FILE
is_png() { [[ $(head -c 8 "$1" | od -An -tx1 | tr -d ' ') == 89504e470d0a1a0a ]]; }
