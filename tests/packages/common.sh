# What the package tests share. Each runs in an empty folder, with nothing of this tree in its environment.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cmake=${DSV_CMAKE:-cmake} cc=${CC:-cc} cxx=${CXX:-c++}
unset LD_LIBRARY_PATH PKG_CONFIG_PATH CMAKE_PREFIX_PATH CPATH LIBRARY_PATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

die() { echo "FAILED: $*"; exit 1; }
skip() { echo "SKIPPED: $*"; exit 77; }

# checkpoint_of PREFIX: the bundled checkpoint, or a random one while the tree has none.
checkpoint_of() {
  if [[ ! -f $1/share/dsv/nano/config.json ]]; then
    echo "no bundled checkpoint: a random one stands in" >&2
    [[ -d $work/model ]] || "$1/bin/dsv" synth --preset tiny --out "$work/model" >&2
    echo "$work/model"
  else
    echo "$1/share/dsv/nano"
  fi
}

# answers PROGRAM CHECKPOINT: the program has a conversation and closes everything.
answers() {
  local out
  out=$("$@") || die "$* exits with $?"
  [[ -n $out ]] || die "$* says nothing"
  echo "ok: $(basename "$1")"
}
