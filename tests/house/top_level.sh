#!/usr/bin/env bash
# The top level holds exactly the house's rooms; dot files and build trees aside.
set -euo pipefail
cd "$1"
allowed=' CMakeLists.txt CMakePresets.json LICENSE README.md bindings build include kernels lib packaging samples tests '
rc=0
for entry in *; do
  [[ $allowed == *" $entry "* ]] || { echo "not a room of the house: $entry"; rc=1; }
done
for entry in CMakeLists.txt LICENSE README.md include kernels lib packaging samples tests; do
  [[ -e $entry ]] || { echo "missing: $entry"; rc=1; }
done
exit $rc
