"""Under the certified schedule in flow mode no output, input, tower or branch loses its last path.

Random networks of ReLUs with residual branches, several heads, several towers and a U are pruned
until the schedule stands still. What is left is judged by path counts in NumPy, its size by the
flows of layers, and the shares of the dense network by their closed form.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import synflow_jax as sf
from synflow_jax import measure

pytestmark = [
    pytest.mark.filterwarnings("ignore:check of the network"),
    pytest.mark.filterwarnings("ignore:some layer must collapse"),
    pytest.mark.filterwarnings("ignore:rho keeps"),
]


def relu(x):
    return jax.nn.relu(x) if isinstance(x, jax.Array) else np.maximum(x, 0)


class Net:
    """A network of kernels with random sizes, and the share of R that each kernel has."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.params, self.shares = {}, {}
        self.inputs, self.outputs = 1, 1

    def kernel(self, name, rows, columns, share):
        size = 10.0 ** self.rng.uniform(-2, 2)
        self.params[name] = (self.rng.standard_normal((rows, columns)) * size).astype(np.float32)
        self.shares[name] = share
        return name

    @property
    def last(self):
        """The kernels that the outputs come from."""
        return [name for name in self.params if name.startswith("last" if self.many else "head")]

    @property
    def many(self):
        return self.outputs > 1


class Residual(Net):
    """Blocks with one branch or two parallel ones, of one kernel or two."""

    def __init__(self, seed, size, width):
        super().__init__(seed)
        self.kernel("stem", 3, width, 1)
        self.blocks = []
        for k in range(size):
            count = int(self.rng.integers(1, 3))
            branches = []
            for j in range(count):
                hidden = int(self.rng.integers(2, 5))
                share = 1 / (count + 1)
                names = [self.kernel(f"up{k}{j}", width, hidden, share)]
                names += [self.kernel(f"down{k}{j}", hidden, width, share)]
                branches.append(names)
            self.blocks.append(branches)
        self.kernel("head", width, 2, 1)

    def __call__(self, p, x):
        x = x @ p["stem"]
        for branches in self.blocks:
            total = x
            for up, down in branches:
                total = total + relu(x @ p[up]) @ p[down]
            x = total
        return [x @ p["head"]]


class Heads(Net):
    """A trunk and several heads of very different sizes."""

    def __init__(self, seed, size, width):
        super().__init__(seed)
        self.outputs = size + 1
        self.kernel("trunk", 3, width, 1)
        for k in range(self.outputs):
            self.kernel(f"first{k}", width, 3, 1 / self.outputs)
            self.kernel(f"last{k}", 3, 2, 1 / self.outputs)

    def __call__(self, p, x):
        x = relu(x @ p["trunk"])
        return [relu(x @ p[f"first{k}"]) @ p[f"last{k}"] for k in range(self.outputs)]


class Towers(Net):
    """Towers on inputs of their own, added up."""

    def __init__(self, seed, size, width):
        super().__init__(seed)
        self.inputs = size + 1
        for k in range(self.inputs):
            self.kernel(f"first{k}", 3, 4, 1 / self.inputs)
            self.kernel(f"last{k}", 4, width, 1 / self.inputs)
        self.kernel("head", width, 2, 1)

    def __call__(self, p, x):
        towers = [relu(one @ p[f"first{k}"]) @ p[f"last{k}"] for k, one in enumerate(x)]
        total = towers[0]
        for tower in towers[1:]:
            total = total + tower
        return [relu(total) @ p["head"]]


class UShaped(Net):
    """Kernels down and up, with long skips that are added."""

    def __init__(self, seed, size, width):
        super().__init__(seed)
        self.depth = size
        for k in range(size):
            self.kernel(f"down{k}", 3 if k == 0 else width, width, 0.5**k)
            self.kernel(f"up{k}", width, width, 0.5 ** (k + 1))
        self.kernel("middle", width, width, 0.5**size)
        self.kernel("head", width, 2, 1)

    def __call__(self, p, x):
        skips = []
        for k in range(self.depth):
            x = relu(x @ p[f"down{k}"])
            skips.append(x)
        x = relu(x @ p["middle"])
        for k in reversed(range(self.depth)):
            x = relu(skips[k] + x @ p[f"up{k}"])
        return [x @ p["head"]]


def paths(net, masks, x):
    """Count the paths to each output."""
    kept = {name: np.asarray(mask, float) for name, mask in masks.items()}
    return np.array([np.sum(y) for y in net(kept, x)])


@pytest.mark.parametrize("kind", [Residual, Heads, Towers, UShaped])
@settings(max_examples=2, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**16), size=st.integers(1, 3), width=st.integers(2, 4))
def test_nothing_loses_its_last_path_down_to_the_last_weights(kind, seed, size, width):
    net = kind(seed, size, width)
    several = net.inputs > 1
    shape = (3,) if not several else [jax.ShapeDtypeStruct((3,), jnp.float32)] * net.inputs
    saliency = sf.synflow_saliency(sf.flow_mode(net), shape)
    total = sum(leaf.size for leaf in net.params.values())
    dense = measure.layer_flow(net.params, sf.flow_mode(net), shape)
    whole = sum(dense[name] for name in net.last)
    assert {name: flow / whole for name, flow in dense.items()} == {
        name: pytest.approx(share, rel=1e-4) for name, share in net.shares.items()
    }
    # Under a trace a schedule that stands still returns what it has reached.
    run = jax.jit(lambda p: sf.prune(p, saliency, total / len(p), schedule=sf.certified()))
    masks, info = run(jax.tree.map(jnp.asarray, net.params))
    assert bool(info.certified)
    x = np.ones((1, 3)) if not several else [np.ones((1, 3))] * net.inputs
    alive = paths(net, masks, x)
    assert (alive > 0).all()
    for name, mask in masks.items():
        without = paths(net, {**masks, name: np.zeros_like(mask)}, x)
        assert without.sum() < alive.sum(), f"no path goes through {name}"
    for k in range(net.inputs if several else 0):
        cut = [row * (at != k) for at, row in enumerate(x)]
        assert paths(net, masks, cut).sum() < alive.sum(), f"no path comes from input {k}"
    # Every weight that is left carries the smallest of the flows that must not be lost, or more.
    flows = measure.layer_flow(net.params, sf.flow_mode(net), shape, masks)
    least = min(*flows.values(), sum(flows[name] for name in net.last) / net.outputs)
    for name, mask in masks.items():
        assert 1 <= int(mask.sum()) <= math.floor(flows[name] / least + 1e-4), name


def test_the_plain_sum_of_flows_loses_branches_on_the_way():
    """The same networks without shares: small branches go first, as nothing protects them."""
    net = Residual(5, 3, 4)
    saliency = sf.synflow_saliency(sf.flow_mode(net, branches=None), (3,))
    total = sum(leaf.size for leaf in net.params.values())
    run = jax.jit(lambda p: sf.prune(p, saliency, total / len(p), schedule=sf.certified()))
    masks, _ = run(jax.tree.map(jnp.asarray, net.params))
    assert not all(bool(mask.any()) for mask in masks.values())


def test_a_tower_of_tokens_keeps_its_path_beside_one_of_images():
    """The tokens' table is no source beside a floating input: each of the two has half of R."""
    rng = np.random.default_rng(5)
    sizes = {"image": (6, 8), "text": (4, 8), "mix": (8, 6), "head": (6, 2)}
    params = {
        name: jnp.asarray(rng.standard_normal(size), jnp.float32) for name, size in sizes.items()
    }
    params |= {"table": jnp.full((9, 4), 1e-3), "text": params["text"] * 1e-3}

    def network(p, x):
        towers = relu(x["image"] @ p["image"]) + relu(p["table"][x["tokens"]].mean(1) @ p["text"])
        return relu(relu(towers) @ p["mix"]) @ p["head"]

    shape = {
        "image": jax.ShapeDtypeStruct((6,), jnp.float32),
        "tokens": jax.ShapeDtypeStruct((3,), jnp.int32),
    }
    flow = sf.flow_mode(network)
    flows = measure.layer_flow(params, flow, shape)
    whole = 2.0 ** float(sf.log2_flow(params, flow, shape))
    for name, share in {"image": 0.5, "text": 0.5, "mix": 1, "head": 1}.items():
        assert float(flows[name]) == pytest.approx(share * whole, rel=1e-5)
    masks = sf.synflow(params, flow, shape, 10, schedule=sf.certified())
    kept = {name: np.asarray(mask, int) for name, mask in masks.items()}
    rest = kept["mix"] @ kept["head"]
    assert (kept["image"] @ rest).any()
    assert (kept["text"] @ rest).any()
