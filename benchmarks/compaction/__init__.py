"""What `compact` and `slim` gain: size, multiply-adds, seconds and accuracy of the smaller network.

The smaller network is dense. Products with sparse matrices: see sparse/.
"""
