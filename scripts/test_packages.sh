#!/usr/bin/env bash
# What the tests need of Debian: WSClean, Prometheus (its server and promtool), systemd-analyze, Chromium, jq and
# the container engines. Installed where apt-get and the right to use it are there; elsewhere what is missing is
# named, and the tests that need it skip with that reason. With CONTIMG_REQUIRE_ALL=1 that is an error.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 # RUNLEVEL: the packages' services are not started

missing=()
for pair in wsclean:wsclean prometheus:prometheus promtool:prometheus systemd-analyze:systemd \
    chromium:chromium jq:jq dockerd:docker.io podman:podman runc:runc mmdebstrap:mmdebstrap bindfs:bindfs; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

give_up() {
    echo "not installed, $1: ${missing[*]} (the tests that need them are skipped)" >&2
    [ "${CONTIMG_REQUIRE_ALL:-}" = 1 ] && exit 2
    exit 0
}

command -v apt-get >/dev/null || give_up "as there is no apt-get"
sudo=()
if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || give_up "as only root may"
    sudo=(sudo)
fi
"${sudo[@]}" apt-get update -qq || give_up "as apt-get update fails"
"${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" || give_up "as apt-get install fails"
