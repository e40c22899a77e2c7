"""The report: what happened in the last minutes and hours, from the data that roles/report/files/collect.py collects.

`dataset`, with `spans` and `stats`, answers questions about the data. `rules` read it and yield `findings`, by
`thresholds`; `quality` warns about too little data. `render` writes the page: `templates`, `tables`, and `pictures`
made by `charts`, `service_map` and `waterfall`. `samples` writes docs/samples, `formats` has numbers as text, `cli` the
subcommands.
"""
