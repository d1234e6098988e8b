#!/usr/bin/env bash
# notice.sh SOURCE_DIR: NOTICE names every library whose headers the library and the tool include.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$1"
# Benchmarks and emulation are not shipped. <folder/header> of anything but this project and the system, and the headers that others keep at the top.
libraries=$(grep -rhoE '^#include <([A-Za-z0-9_]+/|(pcre2|zstd|xxhash|utf8proc)\.h)' lib kernels samples/cli --exclude-dir=bench --exclude-dir=emulation |
  sed -E 's/.*<//; s/[/.].*//' | grep -vxE 'dsv|sys|linux|asm' | sort -u)
for library in $libraries; do
  grep -qiw "$library" packaging/NOTICE || die "packaging/NOTICE does not name $library"
done
(($(wc -w <<<"$libraries") >= 4)) || die "found only these: $libraries"
echo $libraries
