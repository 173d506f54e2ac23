"""Which outputs count: the flow is that of the chosen ones, in every function that takes them."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from synflow_jax import measure, saliency
from synflow_jax.flow import choose_outputs
from tests.support.nets import all_true

# Plain tanh is what two modes are compared on.
pytestmark = pytest.mark.filterwarnings("ignore::synflow_jax.flow.FlowWarning")
PARAMS = {
    "w": jnp.array([[1.0, -2.0], [3.0, 0.5]]),
    "v": jnp.array([[1.0], [-1.0]]),
    "aside": jnp.full((2, 3), 50.0),
}
SHAPE = (2,)
TRACES = []


def model(params, x):
    """A model with a cache beside its logits."""
    TRACES.append(1)
    h = jnp.tanh(x @ params["w"]) + x
    return {"logits": h @ params["v"], "cache": [h, x @ params["aside"]]}


def logits(y):
    return y["logits"]


def alone(params, x):
    return model(params, x)["logits"]


def rows_of(*args, **options):
    table = sf.report(PARAMS, all_true(PARAMS), *args[1:], **options)
    return [[row.kept, row.flow, row.state == "dead"] for row in table.rows]


KEPT = {"prunable": sf.matching(but=["aside"]), "rounds": 3}  # leaves without flow are warned of
MEASURES = {
    "log2_flow": sf.log2_flow,
    "layer_flow": measure.layer_flow,
    "neuron_flow": measure.neuron_flow,
    "conservation_gap": measure.conservation_gap,
    "effective_density": lambda p, *a, **k: sf.effective_density(p, all_true(p), *a, **k),
    "report": rows_of,
    "synflow": lambda *a, **k: sf.synflow(*a, 1.5, **KEPT, **k),
    "synflow_l2": lambda *a, **k: sf.synflow_l2(*a, 1.5, **KEPT, **k),
    "scores": lambda p, *a, **k: saliency.synflow_saliency(*a, **k)(p, all_true(p)),
    "scores_l2": lambda p, *a, **k: saliency.synflow_l2_saliency(*a, **k)(p, all_true(p)),
}
# Of a cache whose flow is as well conserved, and of masks of few weights, all outputs tell nothing.
ALIKE = {"synflow", "synflow_l2", "conservation_gap"}


def same(left, right):
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.allclose(np.asarray(a), np.asarray(b), rtol=1e-5) for a, b in pairs)


@pytest.mark.parametrize("wrap", [lambda f: f, sf.flow_mode], ids=["plain", "flow mode"])
@pytest.mark.parametrize("name", MEASURES)
def test_the_flow_is_that_of_the_chosen_outputs(name, wrap):
    run = MEASURES[name]
    want = run(PARAMS, wrap(alone), SHAPE)
    assert same(run(PARAMS, wrap(model), SHAPE, outputs=logits), want)
    if name not in ALIKE:
        assert not same(run(PARAMS, wrap(model), SHAPE), want)


def test_flow_by_hand_counts_logits_alone():
    flow = 2.0 ** float(sf.log2_flow(PARAMS, sf.flow_mode(model), SHAPE, outputs=logits))
    gate = np.tanh([4.0, 2.5]) / [4.0, 2.5]
    assert flow == pytest.approx(np.sum(np.array([4.0, 2.5]) * gate + 1), rel=1e-5)
    dead = measure.dead_branches(PARAMS, all_true(PARAMS), model, SHAPE, outputs=logits)
    assert dead == ("aside",)
    assert measure.dead_branches(PARAMS, all_true(PARAMS), model, SHAPE) == ()


@pytest.mark.parametrize("wrap", [lambda f: f, sf.flow_mode], ids=["plain", "flow mode"])
def test_equal_choices_are_equal_and_share_a_program(wrap):
    first, second = (choose_outputs(wrap(model), logits) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert first != choose_outputs(wrap(model), lambda y: y["logits"])
    assert choose_outputs(model, None) is model
    sf.synflow(PARAMS, wrap(model), SHAPE, 1.5, **KEPT, outputs=logits)
    before = len(TRACES)
    sf.synflow(PARAMS, wrap(model), SHAPE, 1.5, **KEPT, outputs=logits)
    assert len(TRACES) == before


REFUSALS = {
    "a name": ("logits", "outputs must be a function .*got 'logits'"),
    "a key that is not there": (lambda y: y["logit"], "and it failed: KeyError: 'logit'"),
    "no array": (lambda y: None, "outputs must return a floating array"),
    "whole numbers": (lambda y: y["logits"] > 0, "outputs must return a floating array"),
}


@pytest.mark.parametrize("wrap", [lambda f: f, sf.flow_mode], ids=["plain", "flow mode"])
@pytest.mark.parametrize("name", REFUSALS)
def test_what_chooses_nothing_is_refused(name, wrap):
    outputs, message = REFUSALS[name]
    with pytest.raises(TypeError, match=message):
        sf.synflow(PARAMS, wrap(model), SHAPE, 2.0, outputs=outputs)


def heads(policy=0.01):
    """An actor and a critic of three layers each, the actor's last layer being small."""
    rng = np.random.default_rng(0)
    widths = {"actor": (4, 16, 16, 2), "critic": (4, 16, 16, 1)}
    params = {
        f"{tower}{k}": jnp.asarray(rng.standard_normal((n, m)) / np.sqrt(n), jnp.float32)
        for tower, sizes in widths.items()
        for k, (n, m) in enumerate(pairwise(sizes))
    }
    return params | {"actor2": policy * params["actor2"]}


def two_heads(p, x):
    tower = lambda name: jnp.tanh(jnp.tanh(x @ p[f"{name}0"]) @ p[f"{name}1"]) @ p[f"{name}2"]
    actor = tower("actor")
    return {"logits": actor, "value": tower("critic"), "action": jnp.argmax(actor, -1)}


def test_every_output_has_the_same_share_of_the_flow_in_flow_mode():
    params = heads()
    flows = sf.measure.layer_flow(params, sf.flow_mode(two_heads), (4,))
    total = 2.0 ** float(sf.log2_flow(params, sf.flow_mode(two_heads), (4,)))
    # Each tower is a chain, so that each of its layers has its share.
    assert {k: float(v) for k, v in flows.items()} == pytest.approx(
        dict.fromkeys(params, total / 2), rel=1e-5
    )
    # The sum of both is what they have by themselves.
    alone = [
        2.0 ** float(sf.log2_flow(params, sf.flow_mode(lambda p, x, k=k: two_heads(p, x)[k]), (4,)))
        for k in ("logits", "value")
    ]
    assert total == pytest.approx(sum(alone), rel=1e-5)
    assert float(sf.measure.conservation_gap(params, sf.flow_mode(two_heads), (4,))) < 1e-5


@pytest.mark.parametrize("size", [1e-30, 1.0])
def test_shares_are_the_same_however_far_apart_the_outputs_are(size):
    rng = np.random.default_rng(0)
    params = {
        "deep": jnp.asarray(100 * rng.standard_normal((40, 16, 16)), jnp.float32),
        "a": jnp.asarray(size * rng.standard_normal((16, 4)), jnp.float32),
        "b": jnp.asarray(rng.standard_normal((16, 4)), jnp.float32),
    }

    def network(p, x):
        deep = jax.lax.scan(lambda h, w: (jax.nn.relu(h @ w), None), x, p["deep"])[0]
        return x @ p["a"], deep @ p["b"]  # 2^0 or less beside 2^300

    flows = sf.measure.layer_flow(params, sf.flow_mode(network), (16,))
    assert float(flows["a"]) == pytest.approx(float(flows["b"]), rel=1e-4)


def test_a_small_policy_head_keeps_its_actor_in_flow_mode():
    params = heads()
    masks = sf.synflow(params, sf.flow_mode(two_heads), (4,), 4)
    kept = {name: int(mask.sum()) for name, mask in masks.items()}
    assert sum(kept.values()) == 172  # of 688
    actor = sum(kept[f"actor{k}"] for k in range(3))
    assert min(kept.values()) > 0 and 0.4 < actor / 172 < 0.6


def test_an_output_without_flow_has_no_share():
    params = {"a": jnp.ones((3, 2)), "b": jnp.ones((3, 2))}
    network = lambda p, x: (x @ p["a"], x @ p["b"])
    masks = {"a": jnp.ones((3, 2), bool), "b": jnp.zeros((3, 2), bool)}
    flows = sf.measure.layer_flow(params, sf.flow_mode(network), (3,), masks)
    assert {name: float(flow) for name, flow in flows.items()} == {"a": 6.0, "b": 0.0}


@pytest.mark.parametrize("mode", ["plain", "flow mode"])
def test_weights_of_outputs(mode):
    params = heads(policy=1.0)
    linear = lambda p, x: (x @ p["actor0"] @ p["actor1"], {"value": x @ p["critic0"], "aside": x})
    sums = {}
    for names in (("actor0", "actor1"), ("critic0",)):
        h = np.ones(4)
        for name in names:
            h = h @ np.abs(np.asarray(params[name], np.float64))
        sums[names[0]] = float(h.sum())
    network = linear if mode == "plain" else sf.flow_mode(linear)
    flows = sf.measure.layer_flow(params, network, (4,), outputs={"1/value": 3, "0": 1.5})
    if mode == "plain":
        want = {"actor0": 1.5 * sums["actor0"], "critic0": 3 * sums["critic0"]}
    else:
        total = 1.5 * sums["actor0"] + 3 * sums["critic0"]
        want = {"actor0": total / 3, "critic0": 2 * total / 3}
    assert float(flows["actor0"]) == pytest.approx(want["actor0"], rel=1e-5)
    assert float(flows["actor1"]) == pytest.approx(want["actor0"], rel=1e-5)
    assert float(flows["critic0"]) == pytest.approx(want["critic0"], rel=1e-5)


@pytest.mark.parametrize(
    ("outputs", "error", "said"),
    [
        ({}, ValueError, "outputs must name an output, and it is an empty dict"),
        ({"logits": 0}, ValueError, "a weight above 0 .* got 'logits': 0"),
        ({"logits": True}, ValueError, "got 'logits': True"),
        ({0: 1.0}, ValueError, "got 0: 1.0"),
        (
            {"logit": 1},
            TypeError,
            r"outputs must name arrays .* \['logit'\] are none of \['cache/0",
        ),
        ("logits", TypeError, "or a dict of weights, .* got 'logits'"),
    ],
)
def test_weights_that_make_no_sense_are_refused(outputs, error, said):
    with pytest.raises(error, match=said):
        sf.synflow(PARAMS, model, SHAPE, 2, outputs=outputs)
