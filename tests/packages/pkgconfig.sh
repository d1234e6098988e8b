#!/usr/bin/env bash
# pkgconfig.sh PREFIX: dsv.pc, shared, static, and wholly static, from C99 and C++17.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
prefix=$1
model=$(checkpoint_of "$prefix")
libdir=$(dirname "$(echo "$prefix"/lib*/libdsv.so.0)")
export PKG_CONFIG_PATH=$libdir/pkgconfig
cd "$work"
cp "$here/../../samples/c/quickstart.c" "$here/consumer.cpp" .
flags=(-Wall -Wextra -Werror -pedantic)

pkg-config --exact-version=0.1.0 dsv || die 'wrong version'
archive=$(pkg-config --variable=libdir dsv)/libdsv.a
runtime=$(pkg-config --static --libs-only-other dsv)
"$cc" -std=c99 "${flags[@]}" quickstart.c $(pkg-config --cflags --libs dsv) -o c_shared
"$cxx" -std=c++17 "${flags[@]}" consumer.cpp $(pkg-config --cflags --libs dsv) -o cxx_shared
# The archive among shared runtimes, and a program without any shared library.
"$cc" -std=c99 "${flags[@]}" quickstart.c $(pkg-config --cflags dsv) "$archive" -lstdc++ -lm $runtime -o c_archive
"$cxx" -std=c++17 "${flags[@]}" consumer.cpp $(pkg-config --cflags dsv) "$archive" $runtime -o cxx_archive
"$cc" -std=c99 "${flags[@]}" -static quickstart.c $(pkg-config --static --cflags --libs dsv) -o c_static
"$cxx" -std=c++17 "${flags[@]}" -static consumer.cpp $(pkg-config --static --cflags --libs dsv) -o cxx_static
for program in c_shared cxx_shared; do
  ! ./$program "$model" >/dev/null 2>&1 || die "$program runs without the library"
  LD_LIBRARY_PATH=$libdir answers ./$program "$model"
done
for program in c_archive cxx_archive c_static cxx_static; do answers ./$program "$model"; done
! readelf -d c_static | grep -q NEEDED || die 'c_static is not static'

# The program may have another PCRE2 and other names like the library's own.
cat >clash.c <<'END'
#include <dsv/dsv.h>
int pcre2_compile_8(void) { return 1; }
int main(void) { return dsv_version() == 1000 && pcre2_compile_8() == 1 ? 0 : 1; }
END
"$cc" clash.c $(pkg-config --cflags dsv) "$archive" -lstdc++ -lm $runtime -o clash
./clash || die 'names clash'
