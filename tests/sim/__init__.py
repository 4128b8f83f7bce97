"""The simulator: a whole node in one thread on doors made of memory, with a crash anywhere; one seed replays one run.

`doors` is what a node stands on, `runtime` runs it, `model` says what a filesystem is, `check` what a recovered one may be,
`driver` puts them together. What is checked is written in docs/invariants.md.
"""
