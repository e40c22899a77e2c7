"""Every image that Vantage runs: pulled where a registry answers, else made from published packages.

`manifest` reads images.yml, and `getter` decides where an image comes from. To pull: `registry`, `docker`. To make:
`maker`, of Go modules (`gobuild`), root file systems (`base`) and Python packages (`wheels`); `archive` writes it.
`store` keeps what was got, `cache_keys` says whether it is still what is asked for. `cli` has the subcommands,
`progress` what they show.
"""
