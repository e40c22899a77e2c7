"""What runs on the developer's machine: one command, `vantage`, with a subcommand for each task.

`cli` registers the subcommands. Small ones are one module each: `compose`, `cloud_init`, `render` (with `readmes`),
`lint`, `testing`, `bench`, `fill_past`; the others are packages. `paths`, `process`, `waiting` and `errors` are shared
by all.
"""
