#!/usr/bin/env bash
# property_test.sh DSV PROPERTY_TEST SEQUENCES: on a random checkpoint.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$1" synth --preset tiny --layers 2 --out "$folder/model" >/dev/null
"$2" "$folder/model" "$3"
