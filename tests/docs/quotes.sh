#!/usr/bin/env bash
# quotes.sh SOURCE_DIR: the README's programs are the samples.
set -euo pipefail
cd "$1"
rc=0
# quoted LANGUAGE FILE: the README's first block of the language is the file.
quoted() {
  diff <(awk -v fence="\`\`\`$1" '$0 == fence && !seen { on = seen = 1; next } /^```$/ { on = 0 } on' README.md) "$2" ||
    { echo "FAILED: the README's block is not $2"; rc=1; }
}
quoted c samples/c/quickstart.c
quoted cpp samples/cpp/quickstart.cpp
quoted python samples/python/quickstart.py
quoted java samples/java/Quickstart.java
quoted csharp samples/csharp/Quickstart.cs
# Links into the tree lead somewhere.
for document in README.md include/dsv/GUIDE.md; do
  for link in $(grep -oE '\]\([^)# ]+[)#]' "$document" | sed -E 's/^..(.*).$/\1/' | grep -v '^http'); do
    [[ -e $(dirname "$document")/$link ]] || { echo "FAILED: $document links to $link, which is not there"; rc=1; }
  done
done
exit $rc
