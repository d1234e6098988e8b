#!/usr/bin/env bash
# tokenize, detokenize, encode and parse on hostile input: an exit status, and on failure one sentence and no output.
# text.sh DSV TOKENIZER_JSON
set -euo pipefail
dsv=$(realpath "$1") tokenizer=$(realpath "$2")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
failures=0

fail() { echo "FAILED: $*"; failures=$((failures + 1)); }
# run COMMAND...: standard input from the file `in`.
run() { rc=0; timeout 60 "$dsv" "$@" <in >out 2>err || rc=$?; }
# gives OUTPUT COMMAND...
gives() {
  local want=$1
  shift
  run "$@"
  ((rc == 0)) || fail "exit $rc: $*: $(head -c 300 err)"
  [[ $(cat out) == "$want" ]] || fail "$*: got '$(head -c 300 out)', not '$want'"
}
# refuses WORDS COMMAND...
refuses() {
  local words=$1
  shift
  run "$@"
  ((rc == 1)) || fail "exit $rc, not 1: $* ($words)"
  [[ ! -s out ]] || fail "$*: a failure with output: $(head -c 300 out)"
  [[ $(grep -c . err) == 1 && $(wc -c <err) -lt 1000 ]] || fail "$*: not one sentence: $(head -c 300 err)"
  grep -qF -- "$words" err || fail "$*: '$words' is not in: $(head -c 300 err)"
}
deep() { head -c 100000 /dev/zero | tr '\0' '['; }

tokenize=(tokenize --tokenizer "$tokenizer") detokenize=(detokenize --tokenizer "$tokenizer")
: >in
gives '[]' "${tokenize[@]}"
printf 'a\xffb' >in
refuses UTF-8 "${tokenize[@]}"
printf '\xed\xa0\xbd' >in  # half of a surrogate pair
refuses UTF-8 "${tokenize[@]}"
printf 'a\0\r\n\0' >in
cp in text
run "${tokenize[@]}"
cp out in
run "${detokenize[@]}"
cmp -s out text || fail 'NUL does not come back'
printf hi >in
refuses nowhere.json tokenize --tokenizer nowhere.json
refuses "$folder" tokenize --tokenizer "$folder"
deep >deep.json
refuses deep.json tokenize --tokenizer deep.json
printf '{"model": {"type": "WordPiece"}}' >other.json
refuses "model.type 'WordPiece'" tokenize --tokenizer other.json

printf '[]' >in
gives '' "${detokenize[@]}"
for ids in '' '[' '{}' '1' '[1.5]' '[-1]' '[4294967296]' '[1e999]' '["1"]' '[null]' '[[1]]'; do
  printf %s "$ids" >in
  refuses 'not a JSON array of token ids' "${detokenize[@]}"
done
deep >in
refuses 'not a JSON array of token ids' "${detokenize[@]}"
printf '[2147483647]' >in
refuses 'ids[0] is 2147483647' "${detokenize[@]}"

user='{"role": "user", "content": "a"}'
call() { printf '{"messages": [%s, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "%s"}}]}]}' "$user" "$1"; }
: >in
refuses 'not valid JSON' encode
printf '{"messages": [{"role": "user", "content": "\xff"}]}' >in
refuses UTF-8 encode
printf '{"messages": [{"role": "user", "content": "\\ud83d"}]}' >in
refuses 'half of a surrogate pair' encode
deep >in
refuses 'deeper than 128 levels' encode
call "$(deep)" >in
refuses 'messages[1].tool_calls[0].function.arguments nests JSON deeper' encode
call '{\"a\": 1e999, \"b\": 123456789012345678901234567890, \"c\": 1e-999}' >in
run encode
((rc == 0)) || fail "huge numbers: $(cat err)"
for value in Infinity 123456789012345678901234567890 0.0; do
  grep -qF "string=\"false\">$value</" out || fail "$value is not in: $(cat out)"
done

: >in
gives '{"role": "assistant", "content": ""}' parse
gives '{"role": "assistant", "content": ""}' parse --thinking
printf 'a\xff' >in
refuses UTF-8 parse
printf '\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name="f">\n"' >in
gives '{"role": "assistant", "content": "\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n\""}' parse
printf '\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name="f">\n<｜DSML｜parameter name="x" string="false">%s</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>' "$(deep)" >in
run parse
((rc == 0)) || fail "deep arguments: $(cat err)"
grep -q '"content": ".*function_calls' out || fail 'deep arguments are not content'

((failures == 0)) || exit 1
