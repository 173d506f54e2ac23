"""Rows of results: how they are stored, where they were made, and what the paper says of them.

Also how commands print and refuse. Knows no network, no data set and no method, and imports nothing
of `synflow_jax`.
"""
