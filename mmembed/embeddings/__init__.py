"""Embedding shards, from the vectors of a clip to search in millions of them.

`record` says what is stored of a clip, `write` makes the shards, `dry_run` only looks, `formats`
writes complete shards as one file, `read` gives them back as arrays, `search` and `ivf` find the
nearest.
"""
