#!/usr/bin/env bash
# From a fresh Debian 12 to an answer: installs the packages, builds, replays the bundled trace under contiguous placement
# and under EPLB, prints the comparison.  May be run again.
set -euo pipefail
cd "$(dirname "$0")/../.."

echo "== 1/3 packages"
experiments/install_packages.sh
echo "== 2/3 build (a few minutes the first time)"
cmake --preset release >/dev/null
cmake --build --preset release --target epsim
echo "== 3/3 replay"
out=epsim-out/quickstart
build/release/epsim compare experiments/quickstart --vary workload.continuous.running_requests_per_rank=8,64,256 \
  --vary placement.policy=contiguous,eplb --out "$out"
echo
echo "Report files: $PWD/$out, a folder for each alternative:"
echo "  summary.json    the figures       steps.csv      one line a step"
echo "  timeline.json   open in ui.perfetto.dev          manifest.txtpb  what was run"
