"""Experiments on real data: a file here is a command, `python -m experiments.NAME --help`.

What the commands share lies in folders. Imports go down this order, and never up:

    commands > draw > cells > training > data, models > records
"""
