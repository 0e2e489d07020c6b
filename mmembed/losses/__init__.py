"""Losses as functions: each returns one value an item, summed and divided elsewhere, once.

`coral` is the exception: it compares two sets of items and returns one value for both.
"""
