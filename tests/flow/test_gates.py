"""States that decay: rates and steps act through gates, and enter with their sign."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from synflow_jax import measure, saliency
from tests.support.nets import all_true

STEPS, WIDTH = 24, 6
SHAPE = (STEPS, WIDTH)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def kernels(*names):
    return {name: normal(k, WIDTH, WIDTH) for k, name in enumerate(names)}


S5 = {
    **kernels("b", "c", "out"),
    "rate": -jnp.linspace(0.5, 8, WIDTH),
    "turn": jnp.linspace(0.1, 30, WIDTH),
    "log_step": jnp.full(WIDTH, -3.0),
}


def discretised(p, complex_rates):
    rate = jax.lax.complex(p["rate"], p["turn"]) if complex_rates else p["rate"]
    decay = jnp.exp(rate * jnp.exp(p["log_step"]))
    return decay, (decay - 1) / rate


def looped(p, x):
    """A diagonal state-space model, x ↦ h with h_t = exp(λΔ) h_{t−1} + γ u_t, in a loop."""
    decay, gamma = discretised(p, complex_rates=False)
    entering = (x @ p["b"]) * gamma[None, None]

    def step(h, u):
        h = decay[None] * h + u
        return h, h

    h = jax.lax.scan(step, jnp.zeros((x.shape[0], WIDTH)), jnp.moveaxis(entering, 1, 0))[1]
    return h @ p["c"] @ p["out"]


def associative(p, x):
    """The same by an associative scan, as S5 has it, with complex rates and real outputs."""
    decay, gamma = discretised(p, complex_rates=True)
    entering = (x @ p["b"]).astype(decay.dtype) * gamma[None, None]

    def combine(a, b):
        return a[0] * b[0], b[0] * a[1] + b[1]

    decays = jnp.broadcast_to(decay[None, None], entering.shape)
    h = jax.lax.associative_scan(combine, (decays, entering), axis=1)[1]
    return jnp.real(h @ p["c"].astype(h.dtype)) @ p["out"]


def by_hand(p, complex_rates):
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), p)
    rate = p["rate"] + 1j * p["turn"] if complex_rates else p["rate"]
    decay = np.exp(rate * np.exp(p["log_step"]))
    gamma = np.abs((decay - 1) / rate)
    entering = np.ones(SHAPE) @ np.abs(p["b"]) * gamma
    h, total = np.zeros(WIDTH), 0.0
    for u in entering:
        h = np.abs(decay) * h + u
        total += (h @ np.abs(p["c"]) @ np.abs(p["out"])).sum()
    return total


@pytest.mark.parametrize("network", [looped, associative])
def test_the_flow_of_a_state_space_model_by_hand(network):
    flow = 2.0 ** float(sf.log2_flow(S5, sf.flow_mode(network), SHAPE))
    assert flow == pytest.approx(by_hand(S5, network is associative), rel=1e-4)


def test_rates_are_read_from_the_trace():
    wrapped = sf.flow_mode(looped)
    flags = wrapped.signed(S5, saliency.synflow_saliency(wrapped, SHAPE).inputs)
    signed = {path for path, flag in zip(sorted(S5), flags, strict=True) if flag}
    assert signed == {"log_step", "rate"}


def rwkv(p, x):
    """Time mixing of RWKV-4: weights by a running softmax with decay."""
    gate, key, value = jax.nn.sigmoid(x @ p["r"]), x @ p["k"], x @ p["v"]
    decay = -jnp.exp(p["decay"])[None]
    bonus = p["bonus"][None]

    def step(carry, now):
        top, below, most = carry
        k, v = now
        best = jnp.maximum(most, bonus + k)
        old, new = jnp.exp(most - best), jnp.exp(bonus + k - best)
        y = (old * top + new * v) / (old * below + new)
        best = jnp.maximum(most + decay, k)
        old, new = jnp.exp(most + decay - best), jnp.exp(k - best)
        return (old * top + new * v, old * below + new, best), y

    zero = jnp.zeros((x.shape[0], WIDTH))
    rows = (jnp.moveaxis(key, 1, 0), jnp.moveaxis(value, 1, 0))
    y = jax.lax.scan(step, (zero, zero, zero - 1e38), rows)[1]
    return (gate * jnp.moveaxis(y, 0, 1)) @ p["o"]


def linear_attention(p, x):
    """Causal attention with elu + 1 in the place of the softmax."""
    q, k, v = jax.nn.elu(x @ p["q"]) + 1, jax.nn.elu(x @ p["k"]) + 1, x @ p["v"]
    state = jnp.cumsum(k[..., :, None] * v[..., None, :], 1)
    total = jnp.einsum("btd,btd->bt", q, jnp.cumsum(k, 1))
    return (jnp.einsum("btd,btde->bte", q, state) / (total[..., None] + 1e-6)) @ p["o"]


def gated_attention(p, x):
    """Linear attention whose states decay by a gate of the signal, in differences of its sums."""
    q, k, v = x @ p["q"], x @ p["k"], x @ p["v"]
    summed = jnp.cumsum(jax.nn.log_sigmoid(x @ p["g"]) / 16, 1)
    past = jnp.tril(jnp.ones((STEPS, STEPS), bool))[None, :, :, None]
    decay = jnp.exp(jnp.where(past, summed[:, :, None] - summed[:, None], -jnp.inf))
    return jnp.einsum("btd,btsd,bsd,bse->bte", q, decay, k, v) @ p["o"]


NETS = {
    "looped": (looped, S5),
    "associative": (associative, S5),
    "rwkv": (
        rwkv,
        {
            **kernels(*"rkvo"),
            "decay": jnp.linspace(-6, 1, WIDTH),
            "bonus": jnp.linspace(-1, 1, WIDTH),
        },
    ),
    "linear attention": (linear_attention, kernels(*"qkvo")),
    "gated attention": (gated_attention, kernels(*"qkvog")),
}


@pytest.mark.parametrize("name", NETS)
def test_flow_is_finite_and_conserved_and_all_scores_are_positive(name):
    network, params = NETS[name]
    wrapped = sf.flow_mode(network)
    assert float(measure.conservation_gap(params, wrapped, SHAPE)) < 1e-5
    scores = saliency.synflow_saliency(wrapped, SHAPE)(params, all_true(params))
    kernels = [score for path, score in scores.items() if params[path].ndim == 2]
    assert min(float(score.min()) for score in kernels) > 0
    assert np.isfinite([float(score.max()) for score in kernels]).all()
