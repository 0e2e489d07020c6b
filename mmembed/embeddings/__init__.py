"""Embedding shards, from the vectors of a clip to search in millions of them.

`write` makes the shards, `dry_run` only probes the clips, `formats` writes complete shards as one
file, `read` gives them back as arrays, `search` and `ivf` find the nearest.
"""
