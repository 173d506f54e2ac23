"""Flow and scores by hand, in NumPy's float64: path by path, and at any depth."""

import itertools

import numpy as np


def brute_force(kernels):
    """Add up every path of a bias-free MLP, and every path through each weight."""
    sizes = [kernels[0].shape[0]] + [k.shape[1] for k in kernels]
    flow, scores = 0.0, [np.zeros(k.shape) for k in kernels]
    for path in itertools.product(*(range(n) for n in sizes)):
        steps = list(itertools.pairwise(path))
        product = np.prod([abs(k[s]) for k, s in zip(kernels, steps, strict=True)])
        flow += product
        for table, step in zip(scores, steps, strict=True):
            table[step] += product
    return flow, scores


def normal(values, exponent):
    """Bring the largest entry to [½, 1)."""
    shift = int(np.frexp(values.max())[1])
    return np.ldexp(values, -shift), exponent + shift


def flow_by_hand(layers, residual=False):
    """Propagate forwards and backwards; give log2 R and the scores over R, a list a layer.

    `layers` holds tuples of kernels: one a layer, or the two of a residual block.
    """
    layers = [[np.abs(np.asarray(k, np.float64)) for k in layer] for layer in layers]
    states = [normal(np.ones(layers[0][0].shape[0]), 0)]
    for layer in layers:
        h, e = states[-1]
        y = np.linalg.multi_dot([h, *layer]) if len(layer) > 1 else h @ layer[0]
        states.append(normal(y + h if residual else y, e))
    flow, power = states[-1][0].sum(), states[-1][1]
    g, e, shares = np.ones(layers[-1][-1].shape[1]), 0, []
    for layer, (h, at) in zip(reversed(layers), reversed(states[:-1]), strict=True):
        unit = np.ldexp(1.0, at + e - power) / flow
        inputs, outputs = [h], [g]
        for kernel in layer[:-1]:
            inputs.append(inputs[-1] @ kernel)
        for kernel in reversed(layer[1:]):
            outputs.insert(0, kernel @ outputs[0])
        triples = zip(inputs, layer, outputs, strict=True)
        shares.append([a[:, None] * k * b[None, :] * unit for a, k, b in triples])
        back = layer[0] @ outputs[0]
        g, e = normal(back + g if residual else back, e)
    return np.log2(flow) + power, shares[::-1]
