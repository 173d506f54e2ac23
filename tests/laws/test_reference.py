"""Masks, scores and flows against the PyTorch reference, entry for entry, by the public API."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from tests.support.networks import FIXTURES, NETWORKS, Network, get

# Many of the reference's cases lose layers: here that is a result like any other.
pytestmark = pytest.mark.filterwarnings("ignore::synflow_jax.CollapseWarning")

# These compile ResNet-20 anew and say what fc_digits says. benchmarks/exact/reference_vgg.py checks
# them, with ResNet-20 in float64 and at other numbers of rounds, and all of VGG-11.
ELSEWHERE = [
    ("resnet20", case)
    for case, spec in NETWORKS["resnet20"].spec["data_cases"].items()
    if spec["scope"] == "local" or spec["method"] == "magnitude" or case.endswith("_bias")
]
METHOD_CASES = [
    (name, case)
    for name, net in NETWORKS.items()
    for case in net.spec["data_cases"]
    if (name, case) not in ELSEWHERE
]


def flow_cases(*names, rounds=(1, 10, 100)):
    return [
        (name, case)
        for name in names
        for case, spec in NETWORKS[name].spec["cases"].items()
        if spec["rounds"] in rounds
    ]


@pytest.fixture
def compiled_to_size(name, request):
    """Over many rounds, large networks take longer to run than to compile."""
    if name in ("resnet20", "vgg11_bn"):
        request.getfixturevalue("fully_compiled")


def schedule_of(net: Network, name: str):
    """The case's schedule, or the counts that the reference kept where its rule is not ours.

    Linear on fc: it rounds 1 - (1 - d)k/n and keeps one more where N d_k is whole. GraSP in ten
    rounds: the cut falls among scores of exactly 0, and it drops all of them.
    """
    case = net.case(name)
    if "counts" in case:
        densities = np.array(case["counts"]) / net.mask(name).size
        return lambda *_: densities
    return {"exponential": sf.exponential, "linear": sf.linear}[case.get("schedule", "exponential")]


def prune_as_reference(net: Network, name: str, dtype):
    case, saliency = net.case(name), sf.synflow_saliency(net.apply, net.shape)
    rho, schedule = 1 / case["density"], schedule_of(net, name)
    return sf.prune(net.params(dtype), saliency, rho, case["rounds"], schedule=schedule)


def batches_of(net: Network, case):
    if net.name == "resnet20":
        rng = np.random.default_rng(11)
        x = rng.standard_normal((32, 3, 32, 32)).astype(np.float32).transpose(0, 2, 3, 1)
        labels = rng.integers(0, 10, 32)
    else:
        digits = np.load(FIXTURES / "digits.npz")
        x = (digits["images_uint8"][..., None] / 16).astype(np.float32)
        labels = digits["labels"]
    n, size = case["batches"], case["batch_size"]
    cuts = [slice(i * size, (i + 1) * size) for i in range(n)]
    return [(jnp.asarray(x[c], jnp.float64), jnp.asarray(labels[c], jnp.int32)) for c in cuts]


def all_kept(params):
    return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)


def layer_sums(net: Network, scores, names):
    sizes = [np.prod(shape) for name, shape, *_ in net.spec["state"] if name in names]
    return [part.sum() for part in np.split(scores, np.cumsum(sizes)[:-1])]


def run_method(net: Network, name: str):
    """Masks of a case by the preset of its method."""
    case, params = net.case(name), net.params(np.float64)
    wanted = {"/".join(net.paths[key]) for key in case["names"]}
    options = {
        "rounds": case["rounds"],
        "schedule": schedule_of(net, name),
        "scope": {"local": sf.layerwise, "global": sf.globally}[case["scope"]],
        "prunable": lambda path, _: path in wanted,
    }
    rho = 1 / case["density"]
    if case["method"] == "synflow":
        return sf.synflow(params, net.apply, net.shape, rho, **options)
    if case["method"] == "magnitude":
        return sf.magnitude(params, rho, **options)
    batches = batches_of(net, case)
    if case["method"] == "snip":
        return sf.snip(params, sf.cross_entropy(net.apply), batches, rho, **options)
    loss = sf.cross_entropy(net.apply, temperature=200.0)
    return sf.grasp(params, loss, batches, rho, **options)


def dense_scores(net: Network, name: str):
    """The first round's scores, flat, normalised as in the reference."""
    case, params = net.case(name), net.params(np.float64)
    if case["method"] == "magnitude":
        saliency = sf.saliency.magnitude_saliency()
    elif case["method"] == "snip":
        saliency = sf.saliency.snip_saliency(sf.cross_entropy(net.apply), batches_of(net, case))
    else:
        loss = sf.cross_entropy(net.apply, temperature=200.0)
        saliency = sf.saliency.grasp_saliency(loss, batches_of(net, case))
    scores = net.to_flat(saliency(params, all_kept(params)), case["names"])
    total = {"snip": scores.sum(), "grasp": abs(scores.sum()) + 1e-10}.get(case["method"], 1.0)
    return scores / total


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("net", NETWORKS.values(), ids=NETWORKS)
def test_scores_of_the_dense_network(net):
    params, saliency = net.params(np.float64), sf.synflow_saliency(net.apply, net.shape)
    scores = net.to_flat(jax.jit(saliency)(params, all_kept(params)))
    expected = net.answers["score"]
    # Relative to the largest: rounding of the largest term reaches every sum it is part of.
    found = scores[net.answers["score_index"]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * expected.max())
    # float64 sums of up to two million positive terms: 1e-10 is generous.
    sums = layer_sums(net, scores, net.spec["prunable"])
    np.testing.assert_allclose(sums, net.answers["layer_totals"], rtol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["fc_digits", "conv_digits"])
def test_flow_of_the_dense_network_and_of_its_biases(name):
    net = NETWORKS[name]
    flows = sf.measure.layer_flow(net.params(np.float64), net.apply, net.shape)
    log2_flow = sf.log2_flow(net.params(np.float64), net.apply, net.shape)
    # All terms are positive, so float64 sums keep about 14 digits.
    assert float(log2_flow) == pytest.approx(np.log2(net.spec["flow"]), abs=1e-10)
    weights = ["/".join(net.paths[key]) for key in net.spec["prunable"]]
    biases = [flows[path.replace("kernel", "bias")] for path in weights]
    np.testing.assert_allclose([flows[k] for k in weights], net.answers["layer_totals"], rtol=1e-10)
    np.testing.assert_allclose(biases, net.spec["bias_totals"], rtol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["fc_digits", "conv_digits"])
def test_flow_into_and_out_of_units(name):
    net = NETWORKS[name]
    params, saliency = net.params(np.float64), sf.synflow_saliency(net.apply, net.shape)
    scores, flows = (
        jax.jit(saliency)(params, all_kept(params)),
        sf.measure.neuron_flow(params, net.apply, net.shape),
    )
    for i, key in enumerate(net.spec["prunable"]):
        path = net.paths[key]
        flow = flows["/".join(path)]
        into = flow.into + get(scores, (*path[:-1], "bias"))
        # All terms are positive, so float64 sums keep about 14 digits.
        np.testing.assert_allclose(into, net.answers[f"neuron_in_{i}"], rtol=1e-10)
        np.testing.assert_allclose(flow.out_of, net.answers[f"neuron_out_{i}"], rtol=1e-10)


@pytest.mark.usefixtures("x64", "compiled_to_size")
@pytest.mark.parametrize(
    ("name", "case"),
    flow_cases("fc_digits", "conv_digits") + flow_cases("vgg11_bn", rounds=(1,)),
)
def test_synflow_keeps_the_same_weights_in_float64(name, case):
    net = NETWORKS[name]
    masks, info = prune_as_reference(net, case, np.float64)
    assert np.array_equal(net.to_flat(masks), net.mask(case))
    # R before each round; a relative error of 1e-10 moves log2 by 1.4e-10.
    flows = np.log2(net.answers[f"{case}_flow"])
    np.testing.assert_allclose(info.log2_flow[:-1], flows, rtol=0, atol=1.4e-10)


@pytest.mark.parametrize(
    ("name", "case"),
    flow_cases("fc_digits", "conv_digits", rounds=(100,)) + flow_cases("resnet20", rounds=(10,)),
)
def test_synflow_keeps_the_same_weights_in_float32(name, case):
    net = NETWORKS[name]
    masks, _ = prune_as_reference(net, case, np.float32)
    assert np.array_equal(net.to_flat(masks), net.mask(case))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "case"), METHOD_CASES)
def test_methods_keep_the_same_weights(name, case):
    net = NETWORKS[name]
    masks = run_method(net, case)
    assert np.array_equal(net.to_flat(masks, net.case(case)["names"]), net.mask(case))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "case"),
    [(n, case) for n, case in METHOD_CASES if case.endswith("_n1_d0.1")],
)
def test_scores_of_the_methods(name, case):
    net = NETWORKS[name]
    scores, expected = dense_scores(net, case), net.answers[f"{case}_score"]
    # Relative to the largest, as rounding is; GraSP's terms cancel, which costs two digits.
    tolerance = 1e-10 * abs(expected).max()
    found = scores[net.answers[f"{case}_index"]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
    totals = layer_sums(net, scores, net.case(case)["names"])
    stored = net.answers[f"{case}_totals"]
    np.testing.assert_allclose(totals, stored, rtol=0, atol=1e-10 * abs(stored).max())
