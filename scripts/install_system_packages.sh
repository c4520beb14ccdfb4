#!/usr/bin/env bash
# Installs the independent readers that some tests use on Debian and Ubuntu; run as root. Tests that miss one are
# skipped with a reason, so this is optional on your own machine.
set -euo pipefail

declare -A packages=([chromium]=chromium [exiftool]=libimage-exiftool-perl [ffmpeg]=ffmpeg)
missing=()
for program in "${!packages[@]}"; do
    command -v "$program" >/dev/null || missing+=("${packages[$program]}")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Not installed, and needed by some tests: ${missing[*]}"
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends "${missing[@]}"
