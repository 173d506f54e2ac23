"""Experiments on real data, one file each: run them as `python -m experiments.NAME --help`."""
