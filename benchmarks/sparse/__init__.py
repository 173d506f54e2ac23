"""Seconds of products with pruned matrices that are stored sparse: single weights, blocks, 2:4.

One product at a time, no networks. Pruned networks that stay dense: see compaction/.
"""
