"""Data sets: images in memory or as a stream, a text, and how their files are prepared.

Knows no network and no training. `dataset` and `sources` import Grain, TFDS and scikit-learn only
where a data set needs them.
"""
