#!/usr/bin/env bash
# agent.sh DSV SOURCE_DIR AGENT: samples/agent asks a trained model, which calls list_files.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
agent=$3
mkdir "$work/folder"
printf 'the key is red\n' >"$work/folder/notes.txt"
"$agent" "$model" "$work/folder" 'Which files are there?' >"$work/out"
cat "$work/out"
[[ -s $work/out ]] || die 'the agent says nothing'
if ((trained)); then
  grep -q '^\[list_files ' "$work/out" || die 'list_files was not called'
  [[ $(tail -1 "$work/out") == *notes.txt* ]] || die 'the answer does not name the file'
fi
rc=0
"$agent" /no/such/folder . x 2>"$work/err" || rc=$?
[[ $rc == 1 && $(wc -l <"$work/err") == 1 ]] || die "exit $rc: $(cat "$work/err")"
