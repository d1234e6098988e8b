#!/usr/bin/env bash
# game.sh DSV SOURCE_DIR GAME_LOOP: two seconds of samples/game, and its histogram. How long frames take depends on what
# else this machine does, so that is printed, not tested.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
"$3" "$model" --frames 120 --png "$work/frames.png" >"$work/out"
tail -2 "$work/out"
(($(wc -l <"$work/out") >= 12)) || die 'ten lines are missing'
grep -qE '^120 frames, [1-9][0-9]* tokens' "$work/out" || die 'nobody talked'
grep -qE '^frames missed: [0-9]+, because of dsv: [0-9]+' "$work/out" || die 'no count of missed frames'
is_png "$work/frames.png" || die 'the histogram is not a PNG'
"$3" 2>/dev/null && die 'no checkpoint was named'
"$3" "$model" --frames 1 --png /no/such/folder/x.png >/dev/null 2>"$work/err" && die 'the histogram cannot be written'
grep -q '/no/such/folder/x.png' "$work/err" || die "$(cat "$work/err")"
