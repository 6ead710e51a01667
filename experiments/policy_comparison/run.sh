#!/usr/bin/env bash
# run.sh [EPSIM [ARGUMENT...]]: every placement policy on the quickstart trace.  Arguments go to `epsim compare`, e.g.
# --trace my.eptrace, or --set workload.max_steps=100 for a short form.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
epsim=${1:-$here/../../build/release/epsim}
shift || true
exec "$epsim" compare "$here" "$@"
