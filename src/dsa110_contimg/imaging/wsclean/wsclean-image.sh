#!/bin/sh
# Make the WSClean image of `--backend container` from Debian packages, without an image registry.
#
#   wsclean-image.sh ENGINE IMAGE [TARBALL]
#
# ENGINE is docker or podman, IMAGE a name such as contimg-wsclean:bookworm. The file system is kept in TARBALL
# (160-220 MB, 45-75 s to make) and taken from there the next time; remove it to have newer packages.
set -eu
engine=$1 image=$2
cache=${XDG_CACHE_HOME:-$HOME/.cache}/dsa110-contimg
tarball=${3:-$cache/wsclean-bookworm-$(dpkg --print-architecture 2>/dev/null || uname -m).tar}

if [ ! -s "$tarball" ]; then
    command -v mmdebstrap >/dev/null || { echo "mmdebstrap is missing; apt-get install mmdebstrap" >&2; exit 2; }
    mkdir -p "$(dirname "$tarball")"
    beside=$tarball.$$.tar
    trap 'rm -f "$beside"' EXIT
    mmdebstrap --quiet --variant=minbase --include=wsclean --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' bookworm "$beside"
    mv "$beside" "$tarball"
fi
old=$("$engine" images --quiet "$image")
"$engine" import --change 'CMD ["wsclean"]' "$tarball" "$image" >/dev/null
# An earlier one goes, unless it is the same, in use or has another name too.
if [ -n "$old" ] && [ "$old" != "$("$engine" images --quiet "$image")" ]; then
    "$engine" rmi "$old" >/dev/null 2>&1 || true
fi
echo "$image"
