"""Metrics as functions of all items at once: they are never averaged over batches.

Every one is a fraction in [0, 1] (not a percentage) unless its docstring says otherwise.
"""
