#!/usr/bin/env bash
# Docker and podman for the container tests, on a Debian machine without a service manager.
#
#   container_engines.sh up FOLDER     a Docker daemon of its own, all in FOLDER; prints its DOCKER_HOST
#   container_engines.sh down FOLDER   end it, with its containers and mounts
set -euo pipefail

case ${1:-} in
up)
    folder=$2
    mkdir -p "$folder"
    # Where nobody reaps them killed daemons stay as zombies, which the next take for running ones.
    for file in "$folder/dockerd.pid" "$folder/exec/containerd/containerd.pid"; do
        if [ -s "$file" ] && ! grep -qs '^State:.[RSD]' "/proc/$(cat "$file")/status"; then
            rm "$file"
        fi
    done
    dockerd --host="unix://$folder/docker.sock" --data-root="$folder/data" --exec-root="$folder/exec" \
        --pidfile="$folder/dockerd.pid" --iptables=false --bridge=none --storage-driver=overlay2 \
        --default-ulimit nofile=20000:20000 >"$folder/dockerd.log" 2>&1 </dev/null &
    for _ in $(seq 150); do
        if docker --host="unix://$folder/docker.sock" version >/dev/null 2>&1; then
            echo "unix://$folder/docker.sock"
            exit 0
        fi
        sleep 0.2
    done
    echo "dockerd does not answer after 30 s: $(tail -n 1 "$folder/dockerd.log")" >&2
    exit 1
    ;;
down)
    folder=$2
    export DOCKER_HOST=unix://$folder/docker.sock
    timeout 20 docker ps -aq 2>/dev/null | xargs -r timeout 20 docker rm -f >/dev/null 2>&1 || true
    if [ -s "$folder/dockerd.pid" ]; then
        pid=$(cat "$folder/dockerd.pid")
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
        kill -9 "$pid" 2>/dev/null || true
    fi
    grep -o " $folder[^ ]*" /proc/mounts | sort -r | xargs -r -n 1 umount -l 2>/dev/null || true
    ;;
*)
    sed -n '2,5p' "$0" >&2
    exit 2
    ;;
esac
