"""A Fourier neural operator in one dimension, in JAX and by hand in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

PLACES, WIDTH, MODES = 8, 3, 3
SHAPE = (PLACES, 2)


def fno_params(seed, dtype=np.float32, blocks=2):
    """Draw a lift, blocks of a spectral and a pointwise kernel, and a projection."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.standard_normal(shape) / np.sqrt(shape[-2])

    params = {"lift": {"kernel": draw(2, WIDTH)}, "project": {"kernel": draw(WIDTH, 1)}}
    for k in range(blocks):
        spectral = draw(MODES, WIDTH, WIDTH) + 1j * draw(MODES, WIDTH, WIDTH)
        params[f"block{k}"] = {"kernel": draw(WIDTH, WIDTH), "spectral": spectral}
    wide = np.result_type(dtype, np.complex64)
    return jax.tree.map(lambda p: p.astype(wide if np.iscomplexobj(p) else dtype), params)


def fno(params, x):
    """Apply the operator to x[batch, places, 2]."""
    h = x @ params["lift"]["kernel"]
    for name in sorted(name for name in params if name.startswith("block")):
        spectrum = jnp.fft.rfft(h, axis=1)[:, :MODES]
        mixed = jnp.einsum("bmi,mio->bmo", spectrum, params[name]["spectral"])
        far = jnp.fft.irfft(mixed, PLACES, axis=1)
        h = jax.nn.relu(far + h @ params[name]["kernel"])
    return h @ params["project"]["kernel"]


def fno_by_hand(params, x, absolute=False):
    """Apply it by the matrices of the transforms; `absolute` takes the moduli of their entries."""
    there = np.exp(-2j * np.pi * np.outer(np.arange(MODES), np.arange(PLACES)) / PLACES)
    back = np.exp(2j * np.pi * np.outer(np.arange(PLACES), np.arange(MODES)) / PLACES) / PLACES
    back[:, 1:] *= 2  # frequencies k and −k; PLACES / 2 is not among the modes
    if absolute:
        there, back = np.abs(there), np.abs(back)
    h = x @ params["lift"]["kernel"]
    for name in sorted(name for name in params if name.startswith("block")):
        mixed = np.einsum("mn,bni,mio->bmo", there, h, params[name]["spectral"])
        far = np.einsum("nm,bmo->bno", back, mixed).real
        h = np.maximum(far + h @ params[name]["kernel"], 0)
    return h @ params["project"]["kernel"]


def slopes_by_hand(objective, params, step=1e-6):
    """Differentiate objective(m ⊙ θ) by each entry of m, at m = 1, by central differences."""
    leaves, treedef = jax.tree.flatten(params)
    found = [np.zeros(leaf.shape) for leaf in leaves]
    for k, leaf in enumerate(leaves):
        for at in np.ndindex(leaf.shape):
            values = []
            for sign in (1, -1):
                moved = leaf.copy()
                moved[at] *= 1 + sign * step
                values.append(objective(treedef.unflatten([*leaves[:k], moved, *leaves[k + 1 :]])))
            found[k][at] = (values[0] - values[1]) / (2 * step)
    return treedef.unflatten(found)
