"""What computes one cell of an experiment: a method at a compression ratio, on some seeds.

Has the methods, the networks at their initialisation, the settings and the columns of a row, and
runs the cells that are missing. Knows neither tables nor pictures; the function that draws a figure
is an argument.
"""
