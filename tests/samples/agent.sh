#!/usr/bin/env bash
# agent.sh DSV SOURCE_DIR AGENT: samples/agent runs and answers. Whether a model picks the right tool is nano_suites'
# question, and what the loop does with calls is tested on a scripted model in tests/bindings.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
agent=$3
mkdir "$work/folder"
printf 'the key is red\n' >"$work/folder/notes.txt"
"$agent" "$model" "$work/folder" 'Which files are there?' >"$work/out"
cat "$work/out"
[[ -s $work/out ]] || die 'the agent says nothing'
rc=0
"$agent" /no/such/folder . x 2>"$work/err" || rc=$?
[[ $rc == 1 && $(wc -l <"$work/err") == 1 ]] || die "exit $rc: $(cat "$work/err")"
