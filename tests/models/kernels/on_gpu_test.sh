#!/usr/bin/env bash
# models/kernels/on_gpu.sh: the bundle is small, its programs find all but the C library in it, and where there is no
# GPU a run of it fails, says so and leaves its log, all of it in one archive.
# on_gpu_test.sh BUILD FOLDER
set -euo pipefail
build=$1 folder=$2
script=$(cd "$(dirname "$0")/../../../models/kernels" && pwd)/on_gpu.sh
rm -rf "$folder"
mkdir -p "$folder"
trap 'rm -rf "$folder"' EXIT

fail() {
  echo "$1"
  exit 1
}
"$script" --bundle "$folder/bundle" --build "$build" --no-build
[ "$(du -sb "$folder/bundle" | cut -f1)" -lt $((64 << 20)) ] || fail "larger than 64 MiB"
for program in epsim kernel_bench gpu_clock_test expert_mlp_gpu_test; do
  [ -x "$folder/bundle/bin/$program" ] || fail "$program is not in the bundle"
done
# Elsewhere, with its own libraries and the C library alone.
mv "$folder/bundle" "$folder/moved"
libraries=$folder/moved/lib:$folder/moved/lib-gcc
for program in "$folder"/moved/bin/*; do
  outside=$(env -i LD_LIBRARY_PATH="$libraries" ldd "$program" | grep -v "$folder/moved/" |
    grep -v -E 'linux-vdso|ld-linux|lib(c|m|dl|pthread|rt)\.so' || true)
  [ -z "$outside" ] || fail "$program needs $outside"
done
env -i LD_LIBRARY_PATH="$libraries" "$folder/moved/bin/epsim" --version | grep -q '^[0-9]' || fail "epsim does not run"
env -i LD_LIBRARY_PATH="$libraries" "$folder/moved/bin/epsim" list >/dev/null || fail "epsim list does not run"

if nvidia-smi >/dev/null 2>&1; then exit 0; fi  # Here the bundle would run for minutes.
code=0
"$folder/moved/on_gpu.sh" --from "$folder/moved" --out "$folder/out" --seconds 60 >"$folder/table.txt" 2>&1 || code=$?
[ "$code" = 1 ] || fail "exit code $code without a GPU, not 1"
grep -q 'gpu_clock_test.*all tests skipped' "$folder/table.txt" || fail "$(cat "$folder/table.txt")"
grep -q 'kernel_bench.*exit code 1' "$folder/table.txt" || fail "$(cat "$folder/table.txt")"
grep -q 'there is no GPU' "$folder/out/log.txt" || fail "$(cat "$folder/out/log.txt")"
tar -tzf "$folder/out/all.tgz" | sort >"$folder/packed.txt" || fail "there is no archive"
for name in log.txt tests/gpu_clock_test.xml; do
  grep -qx "$name" "$folder/packed.txt" || fail "all.tgz lacks $name: $(cat "$folder/packed.txt")"
done
tail -n 1 "$folder/table.txt" | grep -q FAILED || fail "$(cat "$folder/table.txt")"
# Without any time left there is still an archive of the log.
code=0
"$folder/moved/on_gpu.sh" --from "$folder/moved" --out "$folder/late" --seconds 0 >"$folder/table.txt" 2>&1 || code=$?
[ "$code" = 1 ] || fail "exit code $code without time, not 1"
grep -q 'kernel_bench.*no time was left' "$folder/table.txt" || fail "$(cat "$folder/table.txt")"
tar -xOzf "$folder/late/all.tgz" log.txt | tail -n 1 | grep -q FAILED || fail "the archive's log has no table"
# Nor does a run that is ended from outside lose what it has.
mkdir -p "$folder/slow/bin"
for program in epsim kernel_bench; do
  printf '#!/bin/sh\n[ "$1" = --version ] || { echo begun; exec sleep 300; }\n' >"$folder/slow/bin/$program"
  chmod +x "$folder/slow/bin/$program"
done
"$script" --from "$folder/slow" --out "$folder/ended" >/dev/null 2>&1 &
running=$!
for _ in $(seq 60); do grep -qs begun "$folder/ended/step.txt" && break || sleep 1; done
kill "$running"
code=0
wait "$running" || code=$?
[ "$code" = 1 ] || fail "exit code $code where it was ended, not 1"
tar -xOzf "$folder/ended/all.tgz" log.txt | grep -q '^== kernel_bench' || fail "the archive of what was ended has no log"
tar -xOzf "$folder/ended/all.tgz" step.txt | grep -q begun || fail "the archive of what was ended has no output"
code=0
"$script" --from >/dev/null 2>&1 || code=$?
[ "$code" = 2 ] || fail "exit code $code for bad flags, not 2"
