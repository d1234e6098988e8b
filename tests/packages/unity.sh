#!/usr/bin/env bash
# unity.sh MCS MONO CHECKPOINT SCRIPTED COMMAND...: COMMAND packs the Unity package with CHECKPOINT inside. There is no Unity
# here: the package is compiled as Unity would, against the few declarations that it uses, and its sample plays frames.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
mcs=$1 mono=$2 checkpoint=$3 scripted=$4
pack=("${@:5}")
"${pack[@]}" -D CHECKPOINT="$checkpoint" -D PACKAGE="$work/ai.dsv" -P "$here/../../bindings/csharp/unity/package.cmake" >"$work/log" 2>&1 ||
  { cat "$work/log"; die 'packing'; }
mkdir -p "$work/project/Packages"
cd "$work/project/Packages"
"$cmake" -E tar xzf "$work/ai.dsv-0.1.0.tgz"
mv package ai.dsv
diff -r ai.dsv "$work/ai.dsv" || die 'the tarball is not the folder'
cd ai.dsv
for file in package.json LICENSE.md 'Third Party Notices.md' README.md Runtime/Dsv.asmdef Runtime/link.xml 'Samples~/Npc/Npc.cs' nano~/config.json; do
  [[ -s $file ]] || die "the package lacks $file"
done
# Whatever Unity imports has a .meta file with a guid of its own.
find . -mindepth 1 -name '*~' -prune -o ! -name '*.meta' -print | while read -r path; do
  [[ $path == . || -s $path.meta ]] || die "$path has no .meta file"
done
find . -name '*.meta' ! -path './Samples~/*' | while read -r meta; do [[ -e ${meta%.meta} ]] || die "$meta stands alone"; done
guids=$(find . -name '*.meta' -exec sed -n 's/^guid: //p' {} +)
[[ $(grep -cE '^[0-9a-f]{32}$' <<<"$guids") == $(find . -name '*.meta' | wc -l) ]] || die 'a .meta file has no guid'
[[ -z $(sort <<<"$guids" | uniq -d) ]] || die 'two .meta files share a guid'
# Native code never calls managed code, which IL2CPP could not do without help.
! grep -rniE 'delegate|MonoPInvokeCallback' Runtime/Generated || die 'a delegate crosses'

build() { "$mcs" -langversion:7 -warnaserror -nologo "$@" || die 'does not compile'; }
# play FOLDER DEFINE...: compiles everything and plays in a folder beside Packages.
play() {
  local bin=$1
  mkdir "$bin"
  build -target:library -out:"$bin/UnityEngine.dll" "$here/unity/UnityEngine.cs"
  build -target:library -out:"$bin/UnityEditor.dll" "$here/unity/UnityEditor.cs"
  build -target:library "${@:2}" -reference:"$bin/UnityEngine.dll" -reference:System.Core.dll -out:"$bin/Dsv.dll" \
    -recurse:'Runtime/*.cs'
  build -target:library "${@:2}" -reference:"$bin/UnityEditor.dll" -out:"$bin/Dsv.Editor.dll" Editor/*.cs
  build "${@:2}" -reference:"$bin/UnityEngine.dll" -reference:"$bin/Dsv.dll" -out:"$bin/Player.exe" 'Samples~/Npc/Npc.cs' \
    "$here/unity/Player.cs"
  cp Runtime/Plugins/*/libdsv_csharp.so "$bin"
  (cd "$work/project" && "$mono" "$bin/Player.exe" "$work/streaming" "$scripted" Packages/ai.dsv/package.json \
    Packages/ai.dsv/*/*.asmdef) || die "the player fails with ${*:2}"
}
play "$work/editor" -define:UNITY_EDITOR
mkdir -p "$work/streaming/dsv"
cp -r nano~ "$work/streaming/dsv/nano"
rm -r nano~  # a build has only its StreamingAssets
play "$work/player"
