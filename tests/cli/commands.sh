#!/usr/bin/env bash
# The command lines of the tool, on a random checkpoint.  commands.sh DSV
set -euo pipefail
dsv=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
failures=0

fail() { echo "FAILED: $*"; failures=$((failures + 1)); }
# expect_rc CODE COMMAND...
expect_rc() {
  local want=$1 rc=0
  shift
  "$@" >out 2>err </dev/null || rc=$?
  ((rc == want)) || fail "exit $rc, not $want: $*: $(head -c 300 err)"
}
# same WHAT GOT WANT
same() { [[ "$2" == "$3" ]] || fail "$1: got '$2', not '$3'"; }

expect_rc 2 "$dsv"
expect_rc 2 "$dsv" frobnicate
expect_rc 2 "$dsv" generate --model m
expect_rc 2 "$dsv" generate --model m --prompt a --tokens b
expect_rc 2 "$dsv" synth --preset tiny
expect_rc 0 "$dsv" --help
expect_rc 0 "$dsv" --version
expect_rc 1 "$dsv" synth --preset no-such --out x

"$dsv" synth --preset tiny --out model
expect_rc 1 "$dsv" synth --preset tiny --out model
expect_rc 1 "$dsv" chat --model nowhere --prompt hi
same 'stdout of a failure' "$(cat out)" ''
[[ $(grep -c . err) == 1 ]] || fail "a failure is one sentence, not: $(cat err)"

# Without a GPU, its driver or libdsv_cuda.so: one sentence that names what is missing and what to do.
rc=0
"$dsv" generate --model model --prompt hi --max-tokens 1 --backend cuda >out 2>err || rc=$?
if ((rc == 0)); then
  echo 'a GPU is here: bootstrap.sh gpu-test tests it'
else
  same 'exit without a GPU' "$rc" 1
  [[ $(grep -c . err) == 1 && $(cat err) == *'use the cpu backend'* ]] || fail "without a GPU: $(cat err)"
  expect_rc 1 "$dsv" bench layers --backend cuda
  [[ $(grep -c . err) == 1 && $(cat err) == *'use the cpu backend'* ]] || fail "bench without a GPU: $(cat err)"
fi

# Tokens to text and back; no newline is added to what comes back.
printf 'Hello, w\303\266rld!\n\n' >text
"$dsv" tokenize --tokenizer model/tokenizer.json <text >ids.json
"$dsv" detokenize --tokenizer model/tokenizer.json <ids.json | cmp - text || fail 'tokenize and back'
echo '{"ids": 1}' | "$dsv" detokenize --tokenizer model/tokenizer.json 2>/dev/null && fail 'ids must be an array'

# The chat encoding.
request='{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]}'
begin='<｜begin▁of▁sentence｜>Be brief.<｜User｜>hi<｜Assistant｜>'
same encode "$("$dsv" encode <<<"$request")" "$begin</think>"
same 'encode --no-thinking' "$("$dsv" encode --no-thinking <<<"$request")" "$begin</think>"
same 'encode --thinking' "$("$dsv" encode --thinking <<<"$request")" "$begin<think>"
expect_rc 1 "$dsv" encode
parsed=$(printf 'hm</think>yes<｜end▁of▁sentence｜>' | "$dsv" parse --thinking)
[[ $parsed == *'"reasoning_content"'*'"hm"'* && $parsed == *'"content"'*'"yes"'* ]] || fail "parse: $parsed"

# A request's tokens are a function of model, prompt, options and seed.
one=$("$dsv" generate --model model --tokens ids.json --max-tokens 12 --temperature 1 --seed 7 --ignore-eos --ids)
two=$("$dsv" generate --model model --tokens ids.json --max-tokens 12 --temperature 1 --seed 7 --ignore-eos --ids \
      --threads 1)
other=$("$dsv" generate --model model --tokens ids.json --max-tokens 12 --temperature 1 --seed 8 --ignore-eos --ids)
same 'same seed' "$two" "$one"
[[ $one == '{"ids":['*'"finish_reason":"length"'* ]] || fail "generate --ids: $one"
[[ $other != "$one" ]] || fail 'another seed gives the same tokens'
expect_rc 0 "$dsv" generate --model model --prompt 'Once' --max-tokens 4
fast=$("$dsv" generate --model model --tokens ids.json --max-tokens 12 --temperature 1 --seed 7 --ignore-eos --ids \
       --schedule fast)
same 'the schedule is nothing to the CPU' "$fast" "$one"
expect_rc 2 "$dsv" generate --model model --prompt 'Once' --schedule quick

# logits: rows do not depend on the chunk; 128 bytes of header, then float32 [tokens, 512].
"$dsv" logits --model model --tokens ids.json --out a.npy
"$dsv" logits --model model --tokens ids.json --out b.npy --chunk 3
cmp a.npy b.npy || fail 'logits depend on --chunk'
tokens=$(tr -cd , <ids.json | wc -c)
bytes=$(stat -c %s a.npy)
header=$((10 + $(od -An -tu2 -j8 -N2 a.npy)))
same 'size of a.npy' "$bytes" "$((header + (tokens + 1) * 512 * 4))"
expect_rc 1 "$dsv" logits --model model --tokens ids.json --out /nowhere/a.npy

for command in inspect plan; do
  expect_rc 0 "$dsv" $command --model model
  expect_rc 0 "$dsv" $command --model model --json
  [[ $(head -c 1 out) == '{' ]] || fail "$command --json: $(head -c 100 out)"
done
expect_rc 0 "$dsv" plan --model model --context 1000 --sessions 3
grep -q '^kv_pool_tokens *3072$' out || fail "plan: $(cat out)"

# bench: the engine with one session and with several; layers by op, a prompt in chunks, and what they add up to.
expect_rc 0 "$dsv" bench --model model --contexts 0,16 --prefill 8 --decode 4 --repeat 1 --sessions 3
grep -qE '^3 sessions at 0: [0-9.]+ tok/s together$' out || fail "bench: $(cat out)"
expect_rc 0 "$dsv" bench layers --model model --contexts 64,200 --prefill 32 --chunk 16 --repeat 1 --sessions 2
[[ $(grep -c '^experts ' out) == 5 ]] || fail "bench layers: $(cat out)"
grep -qE '^prompt of 32: ' out || fail "bench layers, prompt: $(cat out)"
expect_rc 0 "$dsv" bench kernels --model model --contexts 64 --rows 1,8 --repeat 1 --json
[[ $(grep -c '"op": "attend"' out) == 2 ]] || fail "bench kernels --json: $(head -c 300 out)"

# eval: a random model passes nothing, and says so; a run compared with itself differs in nothing.
for i in 1 2 3; do
  echo '{"id": "'$i'", "suite": "s", "messages": [{"role": "user", "content": "hi '$i'"}], "thinking": false,' \
       '"max_tokens": 4, "check": {"type": "exact", "value": "no random model says this"}}'
done >suite.jsonl
"$dsv" eval suite.jsonl --model model --json >run.json
"$dsv" eval suite.jsonl --model model --sessions 1 --compare run.json --plot plot.svg >table
grep -qE '^s +3 +0\.0 +0\.0 ' table || fail "eval: $(cat table)"
grep -qE '^all +3 +0\.0 +0\.0 ' table || fail "eval --compare: $(cat table)"
grep -q '</svg>' plot.svg || fail 'eval --plot'
"$dsv" eval suite.jsonl --model model --mtp >table
grep -qE '^s .* drafts right: [0-9.]+%$' table || fail "eval --mtp: $(cat table)"
echo '{}' >bad.jsonl
expect_rc 1 "$dsv" eval bad.jsonl --model model

# Ctrl-C stops the answer, not the program. This random model talks until its context is full, which on the reference
# backend takes long enough to be stopped.
mkfifo input
"$dsv" chat --model model --backend reference <input >answers 2>messages &
pid=$!
exec 3>input
echo 'hello' >&3
for ((i = 0; i < 600; ++i)); do
  [[ -s answers ]] && break
  sleep 0.1
done
kill -INT $pid
for ((i = 0; i < 600; ++i)); do
  grep -qE 'stopped|context is full' messages && break
  sleep 0.1
done
grep -q 'stopped' messages || fail "no answer was stopped: $(cat messages)"
kill -0 $pid 2>/dev/null || fail 'Ctrl-C ended the program'
exec 3>&-
rc=0
wait $pid || rc=$?
same 'exit of chat after Ctrl-C' "$rc" 0

((failures == 0)) && echo ok
exit $((failures > 0))
