"""Rows of results: their files, groups and source, the paper's numbers and the claims on them.

Also the console output of the commands. Knows no network, no data set and no method, and imports
nothing of `synflow_jax`.
"""
