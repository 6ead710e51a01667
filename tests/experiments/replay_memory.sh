#!/usr/bin/env bash
# Peak anonymous memory of a replay does not depend on the trace's length: traces of about 0.2 and 2 GB, each under 300 MB
# and within 10 % of each other.  Usage: replay_memory.sh EPSIM FOLDER
set -euo pipefail
epsim=$1 folder=$(mktemp -d "${2:-/tmp}/epsim_memory_XXXXXX")
trap 'rm -rf "$folder"' EXIT

cat > "$folder/memory.txtpb" <<TXTPB
model: "deepseek-v3" platform: "h100-sxm" ranks: 64
workload { recorded {} } placement { eplb {} }
TXTPB

peak_kb() {  # of RssAnon while the command runs
  "$@" >"$folder/stdout" 2>"$folder/stderr" &
  local pid=$! peak=0 now
  while kill -0 "$pid" 2>/dev/null; do
    now=$(awk '/^RssAnon/ {print $2}' "/proc/$pid/status" 2>/dev/null || true)
    [ "${now:-0}" -gt "$peak" ] && peak=$now
    sleep 0.005
  done
  wait "$pid" || { cat "$folder/stderr" >&2; return 1; }
  echo "$peak"
}

declare -A peak
for steps in 53 530; do  # 8,192 tokens x 58 layers x 8 ids = 3.8 MB a step
  "$epsim" trace synth --preset spread_heat --model deepseek-v3 --layers 58 --experts 256 --top-k 8 --ranks 64 \
    --tokens-per-rank 128 --steps "$steps" --raw --out "$folder/trace.eptrace" >/dev/null
  size=$(stat -c %s "$folder/trace.eptrace")
  peak[$steps]=0
  for _ in 1 2 3; do  # A sample may miss the peak of a run that takes a fraction of a second.
    now=$(peak_kb "$epsim" run "$folder/memory.txtpb" --trace "$folder/trace.eptrace" --out "$folder/out$steps")
    [ "$now" -gt "${peak[$steps]}" ] && peak[$steps]=$now
  done
  echo "$((size / 1000000)) MB trace: peak anonymous memory ${peak[$steps]} kB"
  rm "$folder/trace.eptrace"
done
small=${peak[53]} large=${peak[530]}
[ "$large" -lt 300000 ] && [ "$small" -lt 300000 ] || { echo "over 300 MB"; exit 1; }
[ $((large * 10)) -le $((small * 11)) ] && [ $((small * 10)) -le $((large * 11)) ] || { echo "differ by more than 10 %"; exit 1; }
