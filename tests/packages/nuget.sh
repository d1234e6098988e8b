#!/usr/bin/env bash
# nuget.sh MCS MONO CHECKPOINT SCRIPTED COMMAND...: COMMAND packs the NuGet package with CHECKPOINT inside; a consumer who
# has only that compiles and runs the samples. SCRIPTED is the checkpoint whose answers are known.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
mcs=$1 mono=$2 checkpoint=$3 scripted=$4
pack=("${@:5}")
samples=$here/../../samples/csharp
mkdir "$work/out"
"${pack[@]}" -D CHECKPOINT="$checkpoint" -D PACKAGE="$work/out/Dsv.nupkg" -P "$here/../../bindings/csharp/nuget/package.cmake" \
  >"$work/log" 2>&1 || { cat "$work/log"; die 'packing'; }

package="$work/package ✓"
mkdir "$package"
cd "$package"
"$cmake" -E tar xf "$work/out/Dsv.nupkg"
for file in Dsv.nuspec '[Content_Types].xml' _rels/.rels LICENSE NOTICE README.md nano/config.json lib/netstandard2.0/Dsv.xml; do
  [[ -s $file ]] || die "the package lacks $file"
done
grep -q '<version>0.1.0</version>' Dsv.nuspec || die 'wrong version'
[[ $(echo runtimes/linux-*/native/*) == runtimes/linux-*/native/libdsv_csharp.so ]] || die 'the native folder holds something else'
# Every kind of file has a content type, and what the build copies is there.
find . -type f -name '*.*' ! -name '\[*' | sed 's/.*\.//' | sort -u | while read -r extension; do
  grep -q "Extension=\"$extension\"" '[Content_Types].xml' || die "no content type for .$extension"
done
grep -o 'ThisFileDirectory)\.\./[^"]*' build/Dsv.targets | sed 's|.*)../||' | while read -r glob; do
  compgen -G "$glob" >/dev/null || die "Dsv.targets copies $glob, which is not there"
done

# What the build does with it.
mkdir "$work/bin"
cp lib/netstandard2.0/Dsv.dll runtimes/linux-*/native/* "$work/bin"
cp -r nano "$work/bin/nano"
cd "$work/bin"
run() { env -i PATH=/usr/bin:/bin LANG=C.UTF-8 HOME="$work" "$@"; }
for sample in Quickstart ChatLoop ToolLoop; do
  run "$mcs" -langversion:7 -warnaserror -nologo -reference:Dsv.dll "$samples/$sample.cs" -out:$sample.exe || die "$sample does not compile"
done
answer=$(run "$mono" Quickstart.exe) || die "Quickstart exits with $?"
[[ -n $answer ]] || die 'Quickstart says nothing'
answer=$(printf '#hello\n#emoji\n' | run "$mono" ChatLoop.exe "$scripted") || die "ChatLoop exits with $?"
[[ $answer == $'Hello there!\n[Stop, 4 tokens]\nA hand: 👍 and that is all.\n[Stop, '*' tokens]' ]] || die "ChatLoop says: $answer"
answer=$(run "$mono" ToolLoop.exe '#calculator' "$scripted") || die "ToolLoop exits with $?"
[[ $answer == $'[calculator {"expression": "6 * 7"}]\nThat is all I know.' ]] || die "ToolLoop says: $answer"
for sample in ChatLoop ToolLoop; do
  answer=$(echo 'Hello!' | run "$mono" $sample.exe) || die "$sample exits with $?"
  [[ -n $answer ]] || die "$sample says nothing with the bundled checkpoint"
done
