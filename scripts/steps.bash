#!/usr/bin/env bash
# What the proofs on a true VM share: named steps, and at the end a table of how long each took. To be sourced.
# shellcheck disable=SC2034  # $current is for whoever sources this

say() { printf "${0##*/}: %s\n" "$@" >&2; }
fail() { say "$@"; exit 1; }

names=() seconds=() current=""
# name, command…; a step that fails stays in $current.
step() {
  local name="$1" began=$SECONDS
  shift
  current="$name"
  say "--- $name"
  "$@"
  names+=("$name")
  seconds+=($((SECONDS - began)))
  current=""
}
# what the steps ran on
table() {
  local i
  printf '\n%-52s %8s\n' "step ($1)" seconds
  for i in "${!names[@]}"; do printf '%-52s %8d\n' "${names[$i]}" "${seconds[$i]}"; done
  printf '%-52s %8d\n' together $SECONDS
}
