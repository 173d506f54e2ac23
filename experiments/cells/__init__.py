"""What computes one cell of an experiment: a method at a compression ratio, on some seeds.

Has the methods, the networks at their initialisation, the settings and the columns of a row, and
runs the cells whose rows are missing. Knows no table and no picture: figures pass a function that
draws them.
"""
