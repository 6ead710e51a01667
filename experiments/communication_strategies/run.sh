#!/usr/bin/env bash
# run.sh [EPSIM [STEPS]]: a stress trace in a temporary folder, replayed under every strategy that two H100 nodes can run.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
epsim=${1:-$here/../../build/release/epsim}
steps=${2:-60}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$epsim" trace synth --preset spread_heat --model deepseek-v3 --layers 58 --experts 256 --top-k 8 --ranks 16 \
  --tokens-per-rank 96 --steps "$steps" --out "$folder/trace.eptrace" >/dev/null
"$epsim" compare "$here" --trace "$folder/trace.eptrace" --vary placement.policy=eplb --vary \
  communication.communication=all_to_all,deepep_normal,deepep_low_latency,nccl_all_to_all,allgather_reducescatter,all_reduce
