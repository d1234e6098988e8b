#!/usr/bin/env bash
# From a bare Debian 12 to a running dsv:  bash packaging/bootstrap.sh demo|test|build|check|gpu-test
#   demo   build, then chat (on a terminal) or show a chat and a tool loop
#   test   build and test: release, an ASan + UBSan subset, every fuzzer for 20 s      (20 minutes on 2 cores)
#   build  only build
#   check  clang, all sanitizers over every test, a million sequences of API calls, longer fuzzing; leaves its result in
#          build/check.txt                                                             (90 minutes on 2 cores)
#   gpu-test  build with nvcc, then test and measure the cuda backend on this machine's GPU; no network needed. Where
#             packages for building are missing, a build/release carried from another machine is taken as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# What the library, the tool and the C and C++ tests are built with; what bindings, packages and documents need besides.
packages=(build-essential cmake ninja-build pkg-config nlohmann-json3-dev libpcre2-dev libzstd-dev libcli11-dev
          libfmt-dev libxxhash-dev libhwy-dev libgtest-dev libgmock-dev libbenchmark-dev libpng-dev)
more_packages=(swig openjdk-17-jdk-headless mono-mcs python3-dev python3-venv mypy abigail-tools doxygen)
clang_packages=(clang-14 libclang-rt-14-dev)
jobs=$(nproc)
passed=0 failed=0 skipped=0
parts='_(small|quick)_test$'  # tests that are parts of others

say() { printf '\n=== %s\n' "$*" >&2; }
die() { printf 'bootstrap: %s\n' "$*" >&2; exit 1; }
skip() { printf 'SKIPPED: %s\n' "$*" >&2; skipped=$((skipped + 1)); }

install_missing() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  local root=()
  if (($(id -u) != 0)); then
    command -v sudo >/dev/null || die "these packages are missing, and there is neither root nor sudo: ${missing[*]}"
    root=(sudo)
  fi
  say "installing ${missing[*]}"
  "${root[@]}" apt-get update -q >&2
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}" >&2
}

# build PRESET [TARGET...]
build() {
  local preset=$1
  shift
  say "building $preset"
  cmake --preset "$preset" >&2
  cmake --build --preset "$preset" -j "$jobs" ${1:+--target "$@"} >&2
}

# run_ctest PRESET [ARGUMENT...]: runs the tests and adds up their results.
run_ctest() {
  local preset=$1 log="build/$1/ctest.log" rc=0
  shift
  say "testing $preset"
  ctest --test-dir "build/$preset" --output-on-failure --no-tests=error "$@" 2>&1 | tee "$log" || rc=$?
  local ran bad not_run
  # "98% tests passed, 1 tests failed out of 50"; skipped tests count as passed there and have lines of their own.
  bad=$(sed -n 's/.* tests passed, \([0-9]*\) tests failed out of .*/\1/p' "$log" | tail -1)
  ran=$(sed -n 's/.* tests failed out of \([0-9]*\).*/\1/p' "$log" | tail -1)
  not_run=$(grep -c '^ *[0-9]*/[0-9]* Test .*\*\*\*Skipped' "$log" || true)
  if [[ -z $ran ]]; then
    printf 'FAILED: ctest of %s ended without a result\n' "$preset" >&2
    failed=$((failed + 1))
    return
  fi
  failed=$((failed + bad)) skipped=$((skipped + not_run)) passed=$((passed + ran - bad - not_run))
  if ((rc != 0 && bad == 0)); then failed=$((failed + 1)); fi
}

# fuzz SECONDS FUZZER: from its corpus.
fuzz() {
  local name=${2##*/}
  mkdir -p "build/fuzz/corpus/$name"
  if timeout $(($1 + 120)) "$2" -max_total_time="$1" -timeout=20 -rss_limit_mb=2048 -artifact_prefix="build/fuzz/$name-" \
      "build/fuzz/corpus/$name" "tests/fuzz/corpus/${name#fuzz_}" >"build/fuzz/$name.log" 2>&1; then
    printf 'ok %s\n' "$name"
  else
    tail -40 "build/fuzz/$name.log"
    printf 'FAILED: %s (log: build/fuzz/%s.log)\n' "$name" "$name"
  fi
}

# run_fuzzers SECONDS: every fuzzer, one a core.
run_fuzzers() {
  local results
  export -f fuzz
  say "fuzzing for $1 s each"
  results=$(printf '%s\n' build/fuzz/bin/fuzz_* | xargs -P "$jobs" -I{} bash -c "fuzz $1 {}")
  printf '%s\n' "$results"
  passed=$((passed + $(grep -c '^ok ' <<<"$results" || true)))
  failed=$((failed + $(grep -c '^FAILED: ' <<<"$results" || true)))
  if ! grep -q '^ok ' <<<"$results"; then
    printf 'FAILED: no fuzzer ran\n'
    failed=$((failed + 1))
  fi
}

# run_property_test SEQUENCES: random API calls under ASan + UBSan, shared by the cores.
run_property_test() {
  say "$1 random sequences of API calls"
  # A sequence that hangs must not hang this.
  if timeout 3600 bash tests/abi/property_test.sh build/release/bin/dsv build/fuzz/bin/property_test \
      tests/abi/property_config.json "$1" "$jobs"; then
    passed=$((passed + 1))
  else
    printf 'FAILED: property_test\n'
    failed=$((failed + 1))
  fi
}

# stage NAME COMMAND...: a part of check, with its seconds and counts in $result.
stage() {
  local name=$1 start=$SECONDS before=($passed $failed $skipped)
  shift
  "$@"
  printf '%-52s %5d s  %4d passed, %d failed, %d skipped\n' "$name" $((SECONDS - start)) $((passed - before[0])) \
    $((failed - before[1])) $((skipped - before[2])) >>"$result"
}

# The long test. Its result is left in build/check.txt; packaging/check-result.txt is the last one that was kept.
check() {
  local result=build/check.txt start=$SECONDS
  mkdir -p build
  {
    printf 'bash packaging/bootstrap.sh check\n'
    printf 'date      %s\n' "$(date -u '+%Y-%m-%d %H:%M UTC')"
    printf 'commit    %s\n' "$(git describe --always --dirty --abbrev=40 --exclude '*' 2>/dev/null || echo unknown)"
    printf 'machine   %d cores, %s\n\n' "$jobs" "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)"
  } >"$result"
  stage 'build: g++' build release
  # Once, each binding creates, generates and closes 10,000 times, and emulation runs every case.
  export DSV_CYCLES=10000 DSV_EMULATE_ALL=1
  stage 'tests: g++, 10,000 cycles, all of the emulation' run_ctest release -j "$jobs"
  unset DSV_CYCLES DSV_EMULATE_ALL
  # clang, -Werror, all targets but packages, and ASan and UBSan over every test, in the build that has the fuzzers: the
  # presets clang and asan would show the same once more. Tests called small or quick are parts of others.
  stage 'build: clang, ASan, UBSan' build fuzz
  # Sanitized, whole models on an emulated GPU take over 20 times as long: of loads that prepare, those that fail stand for all.
  export GTEST_FILTER='-Prepared.No*:Kernels.*'
  stage 'tests: clang, ASan, UBSan' run_ctest fuzz -E "$parts" -j "$jobs"
  # TSan, where there are threads. Text, files and the replayed corpora have none, nor has an exports list; an emulated
  # GPU is one thread whatever it runs, and slow.
  stage 'build: TSan' build tsan
  export GTEST_FILTER='-*Cuda*:Enqueued*:Prepared*:Kernels.*'
  stage 'tests: TSan, where there are threads' \
    run_ctest tsan -E "$parts|^(backend_test|memory_test|text_test|exports_test|cli_text|house_.*|replay_.*)$" -j "$jobs"
  unset GTEST_FILTER
  stage 'a million sequences of API calls, ASan, UBSan' run_property_test 1000000
  stage 'fuzzing, 180 s each' run_fuzzers 180
  printf '\n%d passed, %d failed, %d skipped in %d minutes\n' "$passed" "$failed" "$skipped" \
    $(((SECONDS - start + 59) / 60)) >>"$result"
  cat "$result"
  ((failed == 0))
}

closing_line() {
  printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
  ((failed == 0))
}

demo() {
  local dsv=build/release/bin/dsv folder
  build release dsv_tool
  if [[ -t 0 && -t 1 ]]; then
    say "a chat: type a line; Ctrl-C stops an answer, Ctrl-D leaves"
    exec "$dsv" chat
  fi
  folder=$(mktemp -d)
  trap "rm -rf '$folder'" EXIT
  printf 'milk\nthe key is red\nbread\n' >"$folder/notes.txt"
  say 'dsv chat'
  printf '%s\n' 'Hello! Who are you?' 'Can you help me?' | "$dsv" chat
  say 'dsv run: the calculator'
  "$dsv" run --tools-dir "$folder" --prompt 'What is 123 times 456?'
  say 'dsv run: the clock'
  "$dsv" run --tools-dir "$folder" --prompt 'What time is it?'
  say 'dsv run: files'
  "$dsv" run --tools-dir "$folder" --prompt 'Which files are there?'
  say 'dsv run: in a file'
  "$dsv" run --tools-dir "$folder" --prompt 'What does notes.txt say about the key?'
}

# have_all PACKAGE...: whether these are installed.
have_all() {
  local package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || return 1
  done
}

# gpu_step NAME COMMAND...: runs a step and counts it.
gpu_step() {
  local name=$1
  shift
  say "$name"
  if "$@"; then passed=$((passed + 1)); else printf 'FAILED: %s\n' "$name"; failed=$((failed + 1)); fi
}

# on_gpu COMMAND...: runs a device test, which must not have been skipped.
on_gpu() {
  "$@" | tee build/release/gpu.log && ! grep -q SKIPPED build/release/gpu.log
}

gpu_test() {
  local bin=build/release/bin folder checkpoint kernels
  if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L; then
    skip 'no NVIDIA GPU answers here, so the cuda backend is neither tested nor measured'
    return
  fi
  if have_all "${packages[@]}" && command -v nvcc >/dev/null; then
    build release dsv_cuda dsv_tool cuda_device_test cuda_lost_test cuda_attend_bench cuda_ceilings_bench \
      cuda_index_bench cuda_linear_bench cuda_sample_bench
  elif [[ -x $bin/cuda_device_test && -e build/release/lib/libdsv_cuda.so ]]; then
    say 'taking the build that was carried here'
  else
    die "to build here install nvcc 13.0 and: ${packages[*]}; or carry build/release from a machine that has them"
  fi
  export DSV_FIXTURES=$PWD/tests/model/fixtures
  gpu_step 'conformance and fixtures on the GPU' \
    on_gpu "$bin/cuda_device_test" --gtest_filter='Cases/*:*Cuda*'
  gpu_step 'a GPU that fails' on_gpu "$bin/cuda_lost_test"
  if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck 'synccheck --num-cuda-barriers 16384'; do  # its own number is too few
      gpu_step "compute-sanitizer $tool" compute-sanitizer --tool $tool --error-exitcode 1 "$bin/cuda_device_test" \
        --gtest_brief=1 --gtest_filter='Cases/*small_rows7*:Cases/*dense_fp8*:Cases/*released_heads7*'
    done
  else
    skip 'compute-sanitizer is not installed'
  fi
  for kernels in attend index linear sample; do
    if [[ -x $bin/cuda_${kernels}_bench ]]; then
      gpu_step "kernels, checked and timed: $kernels" "$bin/cuda_${kernels}_bench"
    else
      skip "cuda_${kernels}_bench was not carried here"
    fi
  done
  folder=$(mktemp -d)
  trap "rm -rf '$folder'" EXIT
  checkpoint=samples/nano/checkpoint
  for precision in official exact; do
    gpu_step "dsv bench, $precision" "$bin/dsv" bench --model "$checkpoint" --backend cuda --precision $precision \
      --contexts 0,1024 --decode 256 --sessions 64
  done
  # 63 GB of weights.
  if (($(nvidia-smi --id=0 --query-gpu=memory.total --format=csv,noheader,nounits) > 76000)); then
    for schedule in deterministic fast; do
      gpu_step "layers of the released size, $schedule" "$bin/dsv" bench layers --backend cuda --schedule $schedule
    done
  else
    skip 'dsv bench layers needs a GPU of 80 GB'
  fi
  # In `exact` the two differ by the order of their sums alone, which moves no token that is not all but tied.
  # What is drawn, on either, follows from the logits alone.
  for temperature in 0 0.8; do
    for backend in cpu cuda; do
      printf '%s\n' 'Hello! Who are you?' 'Where does Freya Holt live?' 'Who sells bread?' 'What is 31 - 12?' \
        'Who wrote Hamlet?' | "$bin/dsv" chat --model "$checkpoint" --backend $backend --precision exact \
        --temperature $temperature --seed 1 >"$folder/$backend.txt" || true
    done
    gpu_step "the same answers on cpu and cuda, exact, temperature $temperature" cmp "$folder/cpu.txt" "$folder/cuda.txt"
  done
  gpu_step 'the quick suites on cuda, official' bash tests/nano/suites.sh "$bin/dsv" "$checkpoint" --backend cuda
  nvidia-smi --query-gpu=name,driver_version,memory.used,clocks.sm --format=csv
}

case "${1:-}" in
  gpu-test)
    gpu_test
    closing_line
    ;;
  demo)
    install_missing "${packages[@]}"
    demo
    ;;
  build)
    install_missing "${packages[@]}" "${more_packages[@]}"
    build release
    ;;
  test)
    install_missing "${packages[@]}" "${more_packages[@]}" "${clang_packages[@]}"
    python3 -c 'import torch' 2>/dev/null || skip 'the training smoke run needs PyTorch'
    build release
    run_ctest release -j "$jobs"
    # What touches untrusted input or memory by hand, short of the slow whole-model runs and of the tool: with clang, ASan
    # and UBSan, in the build that has the fuzzers; of that, only what these tests and the fuzzers are.
    build fuzz {backend,memory,model,text,kernels,session,abi,property,synth,facade}_test \
      scripted_checkpoint fuzz_{chat_request,config,safetensors,stream_parser,tokenizer}
    run_ctest fuzz -L asan -j "$jobs"
    run_property_test 1000
    run_fuzzers 20
    closing_line
    ;;
  check)
    install_missing "${packages[@]}" "${more_packages[@]}" "${clang_packages[@]}"
    python3 -c 'import torch' 2>/dev/null || skip 'the training smoke run needs PyTorch'
    check
    ;;
  *)
    sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
