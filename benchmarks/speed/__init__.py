"""How fast pruning is: seconds and memory of SynFlow beside PyTorch, JAX with a sort, the floor.

Also selection, vmap, convolutions, growth with the number of weights, rounds of the certified
schedule and networks scored in a second. How fast a pruned network runs: see compaction/ and
sparse/.
"""
