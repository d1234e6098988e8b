#!/usr/bin/env bash
# java.sh JAVA JAVAC CHECKPOINT SCRIPTED COMMAND...: COMMAND packs the jar with CHECKPOINT inside; a consumer who has only
# the jar compiles and runs the samples. SCRIPTED is the checkpoint whose answers are known.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
java=$1 javac=$2 checkpoint=$3 scripted=$4
pack=("${@:5}")
samples=$here/../../samples/java
for name in dsv again; do
  "${pack[@]}" -D CHECKPOINT="$checkpoint" -D PACKAGE="$work/out/$name.jar" -P "$here/../../bindings/java/package.cmake" >"$work/log" 2>&1 ||
    { cat "$work/log"; die 'packing'; }
done
cmp "$work"/out/*.jar || die 'the same inputs make two jars'
"$(dirname "$(readlink -f "$javac")")/jar" --list --file "$work/out/dsv.jar" >"$work/list"
for file in META-INF/LICENSE META-INF/NOTICE META-INF/dsv/nano/config.json; do
  grep -qx "$file" "$work/list" || die "the jar lacks $file"
done

consumer="$work/a consumer ✓"
mkdir "$consumer" "$consumer/tmp"
cd "$consumer"
mv "$work/out/dsv.jar" .
cp "$samples"/*.java "$here/Consumer.java" .
run() { env -i PATH=/usr/bin:/bin LANG=C.UTF-8 HOME="$work" "$@"; }
run "$javac" -encoding UTF-8 -Xlint:all -Werror -cp dsv.jar ./*.java || die 'the samples do not compile'
jvm=(run "$java" -Xcheck:jni -Djava.io.tmpdir="$consumer/tmp" -cp dsv.jar:.)
left() {
  [[ -z $(ls tmp) ]] || die "$1 leaves behind: $(ls tmp)"
  echo "ok: $1"
}

answer=$("${jvm[@]}" Quickstart) || die "Quickstart exits with $?"
[[ -n $answer ]] || die 'Quickstart says nothing'
left Quickstart
answer=$(printf '#hello\n#emoji\n' | "${jvm[@]}" ChatLoop "$scripted") || die "ChatLoop exits with $?"
[[ $answer == $'Hello there!\n[STOP, 4 tokens]\nA hand: 👍 and that is all.\n[STOP, '*' tokens]' ]] || die "ChatLoop says: $answer"
left ChatLoop
answer=$("${jvm[@]}" ToolLoop '#calculator' "$scripted") || die "ToolLoop exits with $?"
[[ $answer == $'[calculator {"expression": "6 * 7"}]\nThat is all I know.' ]] || die "ToolLoop says: $answer"
left ToolLoop
for sample in ChatLoop ToolLoop; do
  answer=$(echo 'Hello!' | "${jvm[@]}" $sample) || die "$sample exits with $?"
  [[ -n $answer ]] || die "$sample says nothing with the bundled checkpoint"
done
"${jvm[@]}" Consumer dsv.jar || die 'Consumer'
left Consumer
! run "$java" -Djava.io.tmpdir=/nowhere -cp dsv.jar:. Quickstart 2>log || die 'runs without a temporary folder'
grep -q 'choose another with -Djava.io.tmpdir=' log || die "no remedy: $(cat log)"
