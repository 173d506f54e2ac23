"""What is traced, what is compiled, and what the program holds."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from synflow_jax.pruning import fixed_loop
from tests.support.nets import (
    CONV_SHAPE,
    MLP,
    WIDTHS,
    batches,
    mlp,
    mlp_params,
    residual,
    residual_params,
)

# Tiny networks at high compression lose outputs, which is not what these tests are about.
pytestmark = pytest.mark.filterwarnings(
    "ignore:check of the network as pruned:synflow_jax.CollapseWarning"
)
FULLY_COMPILED = True  # it reads compiled programs


class Counter:
    """A network that counts how often Python runs it."""

    def __init__(self):
        self.calls = 0

    def __call__(self, params, x):
        self.calls += 1
        return mlp(params, x)


@pytest.mark.parametrize("rounds", [1, 3, 100])
@pytest.mark.filterwarnings("ignore::synflow_jax.UncertifiedWarning")  # one round
def test_the_function_is_traced_once_a_compile(rounds):
    net, params = Counter(), mlp_params(0)
    sf.synflow(params, net, WIDTHS[:1], 4.0, rounds=rounds)
    assert net.calls == 1
    sf.synflow(mlp_params(1), net, WIDTHS[:1], 9.0, rounds=rounds)
    assert net.calls == 1


def test_a_second_call_does_not_compile():
    params = mlp_params(0)
    sf.synflow(params, mlp, WIDTHS[:1], 4.0, rounds=5)
    before = fixed_loop._cache_size()
    sf.synflow(mlp_params(1), mlp, WIDTHS[:1], 7.0, rounds=5)
    sf.synflow(mlp_params(1), mlp, WIDTHS[:1], 7.0, rounds=5, schedule=sf.linear)
    assert fixed_loop._cache_size() == before
    sf.synflow(params, mlp, WIDTHS[:1], 4.0, rounds=6)
    assert fixed_loop._cache_size() == before + 1


def test_saliencies_compare_and_hash_by_value():
    pairs = [
        [sf.synflow_saliency(mlp, (5,)) for _ in range(2)],
        [sf.saliency.magnitude_saliency() for _ in range(2)],
        [sf.gradient_saliency(sf.saliency.weight_energy) for _ in range(2)],
        [sf.cross_entropy(mlp, 2.0) for _ in range(2)],
    ]
    for one, two in pairs:
        assert one is not two
        assert one == two
        assert hash(one) == hash(two)
        assert jax.tree.structure(one) == jax.tree.structure(two)
    assert sf.synflow_saliency(mlp, (5,)) != sf.synflow_saliency(mlp, (6,))
    assert sf.synflow_saliency(mlp, (5,)) != sf.synflow_saliency(residual, (5,))
    assert sf.gradient_saliency(sf.saliency.weight_energy) != sf.gradient_saliency(
        sf.saliency.weight_energy, True
    )


def test_snip_and_grasp_trace_once_whatever_the_rounds():
    calls = []

    def loss(params, batch):
        calls.append(1)
        return jnp.mean(jnp.square(mlp(params, batch[0])))

    params, data = mlp_params(0), batches()
    sf.snip(params, loss, data, 4.0, rounds=4)
    sf.snip(params, loss, data, 9.0, rounds=2)
    assert len(calls) == 1
    sf.grasp(params, loss, data, 4.0, rounds=4)
    assert len(calls) == 1  # the same trace serves gradient and Hessian's product


def program(rounds):
    params = residual_params(0)
    run = jax.jit(lambda p: sf.synflow(p, residual, CONV_SHAPE, 4.0, rounds=rounds))
    return run.lower(params).as_text()


def test_the_program_does_not_grow_with_rounds():
    few, many = program(2), program(64)
    assert len(few.splitlines()) == len(many.splitlines())


def test_no_sort_and_no_concatenation_of_scores():
    text = program(3)
    assert "stablehlo.sort" not in text
    assert "top_k" not in text
    # The network itself joins shifted slices; nothing joins the 3·3·4·4 scores of a layer.
    joined = [line for line in text.splitlines() if "stablehlo.concatenate" in line]
    sizes = [
        np.prod([int(n) for n in line.split("tensor<")[-1].split("x")[:-1]] or [1])
        for line in joined
    ]
    prunable = 3 * 3 * 2 * 4 + 2 * 3 * 3 * 4 * 4 + 12
    assert prunable not in sizes


def test_unhashable_functions_work():
    class Model(list):
        def __call__(self, params, x):
            return mlp(params, x)

    params = mlp_params(0)
    got = sf.synflow(params, Model(), WIDTHS[:1], 4.0)
    want = sf.synflow(params, mlp, WIDTHS[:1], 4.0)
    chex.assert_trees_all_equal(got, want)


def test_partials_share_a_program_and_use_their_own_arrays():
    net = Counter()

    def shifted(shift, params, x):
        return net(params, x * shift)

    params = mlp_params(0)
    flows = []
    for shift in (1.0, 8.0):
        fn = jax.tree_util.Partial(shifted, jnp.full((), shift))
        flows.append(sf.prune(params, sf.synflow_saliency(fn, WIDTHS[:1]), 4.0, 3)[1].log2_flow[0])
    assert net.calls == 1
    assert float(flows[1]) > float(flows[0]) + 1


def test_counts_of_a_traced_rho_are_exact_in_the_millions():
    params = {"w": jnp.zeros((3000, 4001))}
    count = jax.jit(lambda r: sf.magnitude(params, r)["w"].sum(dtype=jnp.int32))
    for rho in (1.5, 3.0, 10.0, 1000.0):
        want = int(sf.magnitude(params, rho)["w"].sum())
        assert abs(int(count(jnp.float32(rho))) - want) <= 1


def test_under_a_trace_a_dead_flow_is_in_the_info():
    params = mlp_params(0, bias=0.0)
    params["layer2"] = jax.tree.map(jnp.zeros_like, params["layer2"])
    info = jax.jit(lambda p: sf.prune(p, MLP, 2.0, 2)[1])(params)
    assert bool(jnp.isneginf(info.log2_flow).all())
