#!/usr/bin/env bash
# Everything that needs a GPU, in one go: the gpu tests, kernel_bench, `epsim calibrate`.
#
#   on_gpu.sh --out OUT [--build BUILD]       builds here (build/release unless said) and runs here
#   on_gpu.sh --bundle DIR [--build BUILD]    builds here and copies what is needed to run elsewhere into DIR, < 64 MiB:
#                                             programs and shared libraries, without glibc, the driver and cuBLAS
#   on_gpu.sh --from DIR --out OUT            runs a bundle, on a machine with a GPU and nothing else to install
#
# Further flags: --no-build (what is there is current), --seconds N (for all but the build, 420: what comes after them
# is done within 600), --gpu N (0), and behind -- flags for `epsim calibrate` (--quick --model deepseek-v3).
# OUT gets log.txt, tests/, kernels.json and calibration/, and OUT/all.tgz has all of them, however far the run came.
# A short table comes last.  The exit code is 0 if everything that ran went well, 1 if not, 2 for bad flags.
set -uo pipefail

usage() {
  echo "on_gpu.sh: $1" >&2
  sed -n '4,13s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
build= bundle= from= out= compile=yes seconds=420 gpu=0
calibrate=(--quick --model deepseek-v3)
while [ $# -gt 0 ]; do
  case $1 in
    --build | --bundle | --from | --out | --seconds | --gpu)
      [ $# -ge 2 ] || usage "$1 needs a value"
      printf -v "${1#--}" %s "$2"
      shift 2
      ;;
    --no-build)
      compile=
      shift
      ;;
    --)
      shift
      calibrate=("$@")
      break
      ;;
    *) usage "no flag $1" ;;
  esac
done
[ -n "$bundle$from$out" ] || usage "say --out, or --bundle"
[ -z "$bundle" ] || [ -z "$from$out" ] || usage "--bundle goes alone"
[ -z "$from" ] || [ -n "$out" ] || usage "--from needs --out"

# The programs of the build folder: epsim, kernel_bench, and those with a test labelled gpu.
programs() {
  echo "$build/epsim"
  echo "$build/kernel_bench"
  ctest --test-dir "$build" -N -V -L '^gpu$' | sed -n 's/^[0-9]*: Test command: \([^ "]*\).*/\1/p' | sort -u
}

prepare_build() {
  build=${build:-$root/build/release}
  if [ -n "$compile" ]; then
    [ -f "$build/build.ninja" ] || cmake --preset cuda -S "$root" -B "$build" || exit 1
    cmake --build "$build" --target epsim kernel_bench gpu_tests || exit 1
  fi
  build=$(cd "$build" && pwd) || exit 1
  mapfile -t binaries < <(programs)
  for binary in "${binaries[@]}"; do
    [ -x "$binary" ] || { echo "on_gpu.sh: $binary is not there: build it, or leave out --no-build" >&2; exit 1; }
  done
  [ "${#binaries[@]}" -gt 2 ] ||
    { echo "on_gpu.sh: $build has no gpu tests: configure it with -DEPSIM_CUDA=ON" >&2; exit 1; }
}

if [ -n "$bundle" ]; then
  prepare_build
  rm -rf "$bundle/bin" "$bundle/lib" "$bundle/lib-gcc"
  mkdir -p "$bundle/bin" "$bundle/lib" "$bundle/lib-gcc" || exit 1
  cp "$here/on_gpu.sh" "$bundle/" || exit 1
  for binary in "${binaries[@]}"; do
    strip -o "$bundle/bin/$(basename "$binary")" "$binary" || exit 1
  done
  # The machine's own C library, and its C++ library where it is new enough; the driver and cuBLAS are never linked.
  ldd "${binaries[@]}" | sed -n 's/^.* => \(\/[^ ]*\) .*/\1/p' | sort -u | while read -r library; do
    case $(basename "$library") in
      libc.so.* | libm.so.* | libdl.so.* | libpthread.so.* | librt.so.* | libresolv.so.* | ld-linux*) ;;
      libcuda.so.* | libcublas*) echo "on_gpu.sh: $library must not be linked" >&2 && exit 1 ;;
      libstdc++.so.* | libgcc_s.so.*) cp -L "$library" "$bundle/lib-gcc/" || exit 1 ;;
      *) strip -o "$bundle/lib/$(basename "$library")" "$library" || exit 1 ;;
    esac
  done || exit 1
  git -C "$root" log -1 --format='%H %ci' >"$bundle/VERSION" 2>/dev/null || echo unknown >"$bundle/VERSION"
  bytes=$(du -sb "$bundle" | cut -f1)
  echo "$bundle: ${#binaries[@]} programs, $(ls "$bundle/lib" | wc -l) libraries, $bytes bytes"
  [ "$bytes" -lt $((64 << 20)) ] || { echo "on_gpu.sh: the bundle is larger than 64 MiB" >&2; exit 1; }
  exit 0
fi

mkdir -p "$out/tests" || exit 1
out=$(cd "$out" && pwd)
log=$out/log.txt
: >"$log" || exit 1

# All of OUT in one file, for machines that give back few; also where something ends this script early.
pack() {
  local packed=$out/all.tgz
  rm -f "$packed"
  (cd "$out" && ls -A | grep -vxF all.tgz | tar -czf "$packed" -T -) || echo "on_gpu.sh: cannot write $packed" >&2
}
running=  # The step's process, which passes a signal on.
trap pack EXIT
trap '[ -z "$running" ] || kill "$running" 2>/dev/null; exit 1' HUP INT TERM

if [ -n "$from" ]; then
  from=$(cd "$from" && pwd) || exit 1
  export LD_LIBRARY_PATH=$from/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  bin=$from/bin
  chmod +x "$bin"/* 2>/dev/null
  mapfile -t tests < <(cd "$bin" && ls | grep -vx -e epsim -e kernel_bench | sed "s|^|$bin/|")
  # An older C++ library than programs were built with: take theirs.
  "$bin/epsim" --version >/dev/null 2>&1 || export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:$from/lib-gcc
  "$bin/epsim" --version >/dev/null 2>&1 || export LD_LIBRARY_PATH=$from/lib-gcc:$LD_LIBRARY_PATH
  version=$(cat "$from/VERSION" 2>/dev/null)
else
  prepare_build
  SECONDS=0
  bin=$build
  tests=("${binaries[@]:2}")
  version=$(git -C "$root" log -1 --format='%H %ci' 2>/dev/null)
fi

# Where images keep the driver's libraries and cuBLAS.
add_library_folder() { LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$1 && export LD_LIBRARY_PATH; }
for folder in /usr/local/nvidia/lib64 /usr/local/nvidia/lib; do
  [ ! -d "$folder" ] || add_library_folder "$folder"
done
for library in libcublasLt.so.13 libcublas.so.13; do  # As Python packages they may lie in folders of their own.
  [ ! -e "/usr/local/cuda/lib64/$library" ] || continue
  [ -z "$(ldconfig -p 2>/dev/null | grep -F "$library ")" ] || continue
  found=$(timeout 30 find /usr/local /opt /usr/lib /root /home -name "$library" -print -quit 2>/dev/null)
  [ -z "$found" ] || add_library_folder "$(dirname "$found")"
done

{
  echo "epsim $version"
  date -u
  uname -a
  echo "LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}"
  timeout -k 5 20 nvidia-smi 2>&1 || echo "nvidia-smi is not there"
} >>"$log"

end=$seconds  # As SECONDS counts them: finding the libraries is part of the time.
failed=0
rows=()
# step NAME SECONDS COMMAND...: runs it for so long at most; its output goes to the log, and to $step_output.
step_output=$out/step.txt
step() {
  local name=$1 limit=$2 begun=$SECONDS status
  shift 2
  [ $((end - SECONDS)) -ge "$limit" ] || limit=$((end - SECONDS))
  echo "== $name: $*" >>"$log"
  if [ "$limit" -le 0 ]; then
    status="no time was left"
    : >"$step_output"
  else
    timeout -k 10 "$limit" "$@" >"$step_output" 2>&1 &
    running=$!
    wait "$running"  # Unlike a process in the foreground it lets traps through.
    local code=$?
    running=
    case $code in
      0) status=ok ;;
      124 | 137) status="took longer than $limit s" ;;
      *) status="exit code $code" ;;
    esac
  fi
  cat "$step_output" >>"$log"
  # A test that is skipped tells nothing of this GPU.
  if [ "$status" = ok ] && grep -q '^\[  PASSED  \] 0 tests' "$step_output"; then status="all tests skipped"; fi
  [ "$status" = ok ] || failed=1
  rows+=("$(printf '%-34s %4d s  %s' "$name" $((SECONDS - begun)) "$status")")
  if [ "$status" != ok ]; then
    rows+=("$(grep -E 'Failure|FAILED|rror|Skipped|: there is|no command' "$step_output" | head -n 4 |
      cut -c1-200 | sed 's/^/    /')")
  fi
  [ "$status" = ok ]
}

for test in "${tests[@]}"; do
  name=$(basename "$test")
  step "$name" 120 "$test" "--gtest_output=xml:$out/tests/$name.xml"
done
figures=
step kernel_bench 150 "$bin/kernel_bench" --gpu "$gpu" --out "$out/kernels.json"
[ ! -s "$step_output" ] || figures=$(cat "$step_output")
step "epsim calibrate" "$seconds" "$bin/epsim" calibrate --gpu "$gpu" --out "$out/calibration" "${calibrate[@]}"
rm -f "$step_output"

{
  echo
  [ -z "$figures" ] || printf '%s\n\n' "$figures"
  printf '%s\n' "${rows[@]}" | grep -v '^$'
  if [ "$failed" = 0 ]; then echo "all ok; $out"; else echo "FAILED; see $log"; fi
} | tee -a "$log"
exit "$failed"
