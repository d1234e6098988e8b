#!/usr/bin/env bash
# install.sh BUILD_DIR PREFIX: installs, then moves the tree, because a package must not know where it was made.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
prefix=$2
"$cmake" --install "$1" --prefix "$work/first" --strip >"$work/log" || { cat "$work/log"; exit 1; }
rm -rf "$prefix"
mkdir -p "$(dirname "$prefix")"
mv "$work/first" "$prefix"
source_dir=$(sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' "$1/CMakeCache.txt")
if grep -rlE "$work|$source_dir/(lib|include)|$1" "$prefix" --include=*.cmake --include=*.pc --include=*.h*; then
  die 'these files name folders of the build'
fi
library=$(echo "$prefix"/lib*/libdsv.so.0)
[[ -f $library ]] || die "$library is missing"
[[ $(readelf -d "$library" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p') == libdsv.so.0 ]] || die 'wrong soname'
if [[ -e $1/lib/libdsv_cuda.so ]]; then
  [[ -f $(dirname "$library")/libdsv_cuda.so ]] || die 'the CUDA backend is not beside the library'
fi
needed=$(readelf -d "$library" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | grep -vE '^(libc|libm|libstdc\+\+|libgcc_s|ld-linux.*)\.so' || true)
[[ -z $needed ]] || die "the library needs $needed"
readelf --dyn-syms -W "$library" | grep -q 'dsv_engine_create@@DSV_0' || die 'symbols carry no version'
# In the static library, too, only the API shows.
diff <(nm -g --defined-only "$(dirname "$library")/libdsv.a" 2>/dev/null | awk 'NF == 3 { print $3 }' | sort) \
     <(nm -D --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort) ||
  die 'the static library shows other names than the shared one'
for package in libdsv0 libdsv-dev dsv; do
  [[ -s $prefix/share/doc/$package/NOTICE && -s $prefix/share/doc/$package/LICENSE ]] || die "no licences for $package"
done
find "$prefix" -type f | sed "s|$prefix/||" | sort
