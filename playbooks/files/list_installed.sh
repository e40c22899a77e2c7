#!/usr/bin/env bash
# Lists what uninstall.yml finds of Vantage and of Docker on this host, one `kind name` a line:
#   list_installed.sh "UNIT…" "IMAGE…"
set -euo pipefail
shopt -s nullglob
PATH="$PATH:/usr/sbin:/sbin"
units="$1" images="$2"

# Stays as long as the Docker that it is about.
record=/var/lib/vantage/.engine-installed kept=""
if command -v dockerd >/dev/null; then kept="$record"; fi

has_content() { [ -n "$(find -H "$1" -mindepth 1 ! -path "$kept" -print -quit 2>/dev/null)" ]; }
size() { du -sh "$1" 2>/dev/null | cut -f1; }
users() {
  docker ps --all --filter "$1" --format '{{.Names}}' | paste -sd ' ' | sed 's/^./, used by: &/'
}

sed 's/^/package /' "$record" 2>/dev/null || true
paths=(/etc/systemd/journald.conf.d/vantage.conf /etc/rsyslog.d/10-vantage.conf /usr/local/lib/vantage /run/vantage /etc/vantage/* /var/cache/vantage/*)
for unit in $units; do paths+=("/etc/systemd/system/$unit"{,.d,.wants}); done
for path in "${paths[@]}"; do
  if [ "$path" = /etc/vantage/secrets ]; then continue; fi
  if mountpoint -q "$path"; then echo "mount $path"
  elif [ -e "$path" ] || [ -L "$path" ]; then echo "file $path"; fi
done
for path in /var/lib/vantage /etc/vantage/secrets; do
  if has_content "$path"; then echo "data $path ($(size "$path"))"; fi
done
for path in /var/lib/docker /var/lib/containerd /etc/docker; do
  if has_content "$path"; then echo "engine-data $path ($(size "$path"))"; fi
done

# The client may be installed without the engine.
if ! docker version >/dev/null 2>&1; then
  if command -v dockerd >/dev/null; then echo engine stopped; else echo engine missing; fi
  exit
fi
echo engine running
for container in ${units//.service/}; do
  if docker container inspect "$container" >/dev/null 2>&1; then echo "container $container"; fi
done
if docker network inspect vantage >/dev/null 2>&1; then echo "network vantage$(users network=vantage)"; fi
# Former versions of apps that were built here are named by no unit, nor are the packages they were built on.
for image in $images $(docker image ls --quiet --filter label=vantage.source) \
  $(docker image ls --quiet --filter 'reference=vantage/*:packages-*'); do
  if docker image inspect "$image" >/dev/null 2>&1; then echo "image $image$(users "ancestor=$image")"; fi
done
for name in $(docker ps --all --format '{{.Names}}'); do
  case " $units " in *" $name.service "*) ;; *) echo "foreign container $name" ;; esac
done
for volume in $(docker volume ls --quiet); do
  names="$(docker ps --all --filter "volume=$volume" --format '{{.Names}}')"
  for name in $names; do case " $units " in *" $name.service "*) continue 2 ;; esac; done
  # A killed engine leaves empty anonymous volumes of its containers behind.
  if [ -n "$names" ] || ! [[ "$volume" =~ ^[0-9a-f]{64}$ ]] \
    || has_content "$(docker volume inspect --format '{{.Mountpoint}}' "$volume")"; then echo "foreign volume $volume"; fi
done
