#!/usr/bin/env bash
# Installs what epsim builds with from Debian 12's packages; does nothing where all of it is there.
# As root, or through sudo.
set -euo pipefail

packages=(
  g++ cmake ninja-build pkg-config ccache git ca-certificates
  libabsl-dev libprotobuf-dev protobuf-compiler libtbb-dev libzstd-dev libxxhash-dev
  nlohmann-json3-dev libcli11-dev libnlopt-dev libgtest-dev libgmock-dev libbenchmark-dev
  libsimgrid-dev
)

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
  echo "packages: all ${#packages[@]} are installed"
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "packages: this is not Debian; install the equivalents of: ${missing[*]}" >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "packages: run as root or install sudo, to install: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
echo "packages: installing ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
echo "packages: done"
