#!/usr/bin/env bash
# kernel_bench without a GPU: exit code 1 and the reason on stderr, nothing on stdout; bad flags: 2.
# kernel_bench_test.sh KERNEL_BENCH
set -euo pipefail
bench=$1
if nvidia-smi >/dev/null 2>&1; then
  echo "this machine has a GPU"
  exit 77
fi
errors=$(mktemp)
trap 'rm -f "$errors"' EXIT
code=0
output=$("$bench" 2>"$errors") || code=$?
[ "$code" = 1 ] || { echo "exit code $code, not 1"; exit 1; }
[ -z "$output" ] || { echo "stdout: $output"; exit 1; }
grep -q -e 'there is no GPU' -e 'driver is too old' -e '-DEPSIM_CUDA=ON' "$errors" || { cat "$errors"; exit 1; }
code=0
"$bench" --no-such-flag >/dev/null 2>&1 || code=$?
[ "$code" = 2 ] || { echo "exit code $code for a bad flag, not 2"; exit 1; }
