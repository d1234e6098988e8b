#!/usr/bin/env bash
# deb.sh BUILD_DIR: the Debian packages, installed into an empty root, used, and removed.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
command -v dpkg-shlibdeps >/dev/null || skip 'dpkg-dev is not installed'
(cd "$work" && "$(dirname "$(command -v "$cmake")")/cpack" -G DEB --config "$1/CPackConfig.cmake" -B "$work/debs" >log) ||
  { cat "$work/log"; die 'cpack'; }
arch=$(dpkg --print-architecture)
for package in libdsv0 libdsv-dev dsv; do
  deb=$work/debs/${package}_0.1.0_$arch.deb
  [[ -f $deb ]] || die "$deb is missing: $(ls "$work/debs")"
  echo "$package: $(dpkg-deb -f "$deb" Depends)"
done
[[ $(dpkg-deb -f "$work/debs/libdsv0_0.1.0_$arch.deb" Depends) == *libstdc++6* ]] || die 'libdsv0 names no libraries'
[[ $(dpkg-deb -f "$work/debs/dsv_0.1.0_$arch.deb" Depends) == *'libdsv0 (= 0.1.0)'* ]] || die 'dsv needs no library'
[[ $(dpkg-deb -f "$work/debs/libdsv-dev_0.1.0_$arch.deb" Depends) == 'libdsv0 (= 0.1.0)' ]] || die 'dev needs no library'

root=$work/root
if ((EUID == 0)); then
  mkdir -p "$root"/var/lib/dpkg/{info,updates}
  touch "$root/var/lib/dpkg/status"
  into=(dpkg --root="$root" --log=/dev/null --force-depends --force-script-chrootless)
  "${into[@]}" -i "$work"/debs/*.deb >"$work/log" 2>&1 || { cat "$work/log"; die 'dpkg -i'; }
else
  for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$root"; done
fi
model=$(checkpoint_of "$root/usr")
"$root/usr/bin/dsv" --version
mkdir "$work/consumer"
cd "$work/consumer"
cp "$here/../../samples/c/quickstart.c" .
libdir=$(dirname "$(find "$root/usr" -name libdsv.so.0)")
export PKG_CONFIG_PATH=$libdir/pkgconfig
"$cc" -std=c99 quickstart.c $(pkg-config --cflags --libs dsv) -o from_deb
LD_LIBRARY_PATH=$libdir answers ./from_deb "$model"
for package in libdsv0 libdsv-dev dsv; do
  [[ -s $root/usr/share/doc/$package/NOTICE ]] || die "$package holds no notices"
done
if ((EUID == 0)); then
  "${into[@]}" -P libdsv-dev dsv libdsv0 >"$work/log" 2>&1 || { cat "$work/log"; die 'dpkg -P'; }
  left=$(find "$root/usr" -type f 2>/dev/null || true)
  [[ -z $left ]] || die "left behind: $left"
fi
