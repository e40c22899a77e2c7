# Completes make's targets in this repository:
#   source <(make --silent completion)        in bash, once for each shell
# Elsewhere it completes what the Makefile of that folder lists with ##.
_vantage_make() {
  local word="${COMP_WORDS[COMP_CWORD]}" targets
  [[ -r Makefile ]] || return 0
  targets="$(sed -n 's/^\([a-z][a-z-]*\):.*## .*/\1/p' Makefile)"
  mapfile -t COMPREPLY < <(compgen -W "$targets" -- "$word")
}
complete -o default -F _vantage_make make
