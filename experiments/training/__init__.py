"""Training of pruned networks: budgets, optimisers, checkpoints, iterative magnitude pruning.

Takes a model, data and masks. Knows no method of pruning at initialisation, no cell and no file of
rows; the settings here are those that the paper trained under.
"""
