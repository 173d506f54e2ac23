"""The flow of deep networks: how large it is, how exact in float32, and what its scaling costs.

Seconds here are those of one value and gradient. Seconds of pruning: see speed/.
"""
