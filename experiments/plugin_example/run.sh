#!/usr/bin/env bash
# run.sh [BUILD [STEPS]]: installs epsim from the build folder BUILD, builds this folder's plug-in against what was
# installed, and replays the quickstart's trace under it and without.  All of it in a temporary folder.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=${1:-$here/../../build/release}
steps=${2:-0}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cmake --install "$build" --prefix "$folder/epsim" >/dev/null
cp -r "$here" "$folder/mine"
cd "$folder"
cmake -S mine -B mine/build -DCMAKE_PREFIX_PATH="$folder/epsim" >/dev/null
cmake --build mine/build >/dev/null

trace=$here/../quickstart/gpt-oss-20b-synthetic.eptrace
for placement in plugin contiguous eplb; do
  override=()
  if [ $placement != plugin ]; then override=(--set placement.policy=$placement --set replica_choice.choice=static_nearest); fi
  echo "== $placement"
  epsim/bin/epsim run mine --trace "$trace" --set workload.max_steps="$steps" "${override[@]}"
done
