#!/usr/bin/env bash
# Installs what is missing, builds release, and runs every test.  May be run again.
# tests/run.sh [ctest arguments], e.g. tests/run.sh -L unit
set -euo pipefail
cd "$(dirname "$0")/.."

echo "== 1/3 packages"
experiments/install_packages.sh
echo "== 2/3 build"
cmake --preset release >/dev/null
cmake --build --preset release
echo "== 3/3 tests"
ctest --preset release "$@"
