"""The table of primitives: every entry runs in a network, and a new primitive is one entry."""

import jax
import jax.extend.core.primitives
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import Primitive as NewPrimitive
from jax.interpreters import mlir

import synflow_jax as sf
from synflow_jax.compaction import PRIMITIVES, Primitive
from synflow_jax.jaxpr import ELEMENTWISE
from tests.support.compacted import NEAR, draw

# JAX's copy, by another name; functions of jax.numpy that became primitives.
OF_OTHER_RELEASES = {"copy_p", "stack", "unstack", "tile"}


def three(h):
    return jnp.concatenate([h[:, None], 2 * h[:, None], -h[:, None]], 1)


def windows(h, start, reduce):
    return lax.reduce_window(three(h), start, reduce, (1, 2, 1), (1, 1, 1), "VALID")[:, 0]


def pool(s):
    return lax.reduce_window(s, -jnp.inf, lax.max, (1, 2, 1), (1, 1, 1), "VALID")


def depthwise(h):
    kernel = jnp.arange(1.0, 7.0).reshape(1, 1, 6)
    numbers = ("NWC", "WIO", "NWC")
    images = h[:, None]
    return lax.conv_general_dilated(
        images, kernel, (1,), "SAME", dimension_numbers=numbers, feature_group_count=6
    )[:, 0]


def noise(h, number=0):
    key = jax.random.split(jax.random.fold_in(jax.random.key(0), number))[1]
    key = jax.random.wrap_key_data(jax.random.key_data(key))
    return h * jax.random.uniform(key, h.shape)


def bits(h):
    return lax.bitcast_convert_type(lax.bitcast_convert_type(h, jnp.int32), jnp.float32)


# Each maps h of shape (batch, 6) to (batch, n), and the primitive of that name occurs in it.
EXAMPLES = {
    "iota": lambda h: h * lax.broadcasted_iota(jnp.float32, h.shape, 1),
    **dict.fromkeys(
        ("random_bits", "random_wrap", "random_unwrap", "random_seed", "random_fold_in"), noise
    ),
    "random_split": noise,
    "random_gamma": lambda h: h * jax.random.gamma(jax.random.key(0), 2.0, h.shape),
    "bitcast_convert_type": bits,
    "dot_general": lambda h: h @ jnp.arange(36.0).reshape(6, 6),
    "conv_general_dilated": depthwise,
    "reduce_sum": lambda h: three(h).sum(1),
    "reduce_max": lambda h: three(h).max(1),
    "reduce_min": lambda h: three(h).min(1),
    "reduce_prod": lambda h: three(h).prod(1),
    "reduce_and": lambda h: jnp.where((three(h) > -1).all(1), h, 0),
    "reduce_or": lambda h: jnp.where((three(h) > 1).any(1), h, 0),
    "argmax": lambda h: h * three(h).argmax(1).astype(jnp.float32),
    "argmin": lambda h: h * three(h).argmin(1).astype(jnp.float32),
    "reduce_window_sum": lambda h: windows(h, 0.0, lax.add),
    "reduce_window_max": lambda h: windows(h, -jnp.inf, lax.max),
    "reduce_window_min": lambda h: windows(h, jnp.inf, lax.min),
    "reduce_window": lambda h: windows(h, 1.0, lax.mul),
    "select_and_scatter_add": lambda h: jax.vjp(pool, three(h))[1](pool(three(h)))[0].sum(1),
    "select_and_gather_add": lambda h: jax.jvp(pool, (three(h),), (three(h),))[1].sum(1),
    "cumsum": lambda h: lax.cumsum(three(h), 1)[:, 1],
    "cumprod": lambda h: lax.cumprod(three(h), 1)[:, 1],
    "cummax": lambda h: lax.cummax(three(h), 1)[:, 1],
    "cummin": lambda h: lax.cummin(three(h), 1)[:, 1],
    "cumlogsumexp": lambda h: lax.cumlogsumexp(three(h), 1)[:, 1],
    "sort": lambda h: jnp.sort(three(h), 1)[:, 0],
    "optimization_barrier": lax.optimization_barrier,
    "device_put": jax.device_put,
    "transpose": lambda h: (2 * h.T).T,
    "rev": lambda h: h[:, ::-1],
    "squeeze": lambda h: lax.squeeze(three(h)[:, :1], (1,)),
    "broadcast_in_dim": lambda h: lax.broadcast_in_dim(h, (len(h), 6, 3), (0, 1)).sum(2),
    "reshape": lambda h: jnp.repeat(h, 2, 1),
    "concatenate": lambda h: jnp.concatenate([h, -h], 1),
    "stack": lambda h: jnp.stack([h, 2 * h, -h], 1).sum(1),
    "unstack": lambda h: jnp.unstack(three(h), axis=1)[1],
    "tile": lambda h: jnp.tile(h, (1, 2)),
    "split": lambda h: jnp.split(h, 2, 1)[0],
    "slice": lambda h: h[:, 1:4],
    "pad": lambda h: jnp.pad(h, ((0, 0), (1, 2))),
    "dynamic_slice": lambda h: lax.dynamic_slice_in_dim(three(h), 1, 1, 1)[:, 0],
    "dynamic_update_slice": lambda h: lax.dynamic_update_slice(h, h + 1, (0, 0)),
    "gather": lambda h: three(h)[:, jnp.array([2, 0])].sum(1),
}


def names_in(fn, *args):
    """Name the primitives of a function, those inside of calls among them."""

    def walk(jaxpr):
        for eqn in jaxpr.eqns:
            yield eqn.primitive.name
            for inner in jax.tree.leaves(
                list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns")
            ):
                if hasattr(inner, "eqns"):
                    yield from walk(inner)

    return set(walk(jax.make_jaxpr(fn)(*args).jaxpr))


def test_every_entry_is_of_a_primitive_of_jax_and_is_complete():
    primitives = [p for p in vars(jax.extend.core.primitives).values() if hasattr(p, "bind")]
    missing = ELEMENTWISE - {primitive.name for primitive in primitives}
    assert missing <= OF_OTHER_RELEASES
    assert PRIMITIVES.keys() - ELEMENTWISE == EXAMPLES.keys()
    default = Primitive(PRIMITIVES["sort"].follow)
    for name, entry in PRIMITIVES.items():
        assert callable(entry.follow), name
        assert callable(entry.alive), name
        assert callable(entry.shrink), name
        if entry.needs or entry.cost:  # a sum is 0 where its terms are
            assert entry.alive is not default.alive, name
        if entry.cost:  # a product of two operands varies with either
            assert entry.varies is not None, name


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_entry_runs_in_a_network(name):
    """Unit 1 has no input, and row 2 of what follows is pruned."""
    example = EXAMPLES[name]
    assert name in names_in(example, jnp.ones((1, 6))) | OF_OTHER_RELEASES
    size = jax.eval_shape(example, jnp.ones((1, 6))).shape[-1]
    params = draw(0, {"u": (4, 6), "v": (size, 2)})
    masks = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)
    masks = {"u": masks["u"].at[:, 1].set(False), "v": masks["v"].at[2].set(False)}
    network = lambda p, x: example(jnp.tanh(x @ p["u"])) @ p["v"]
    small = sf.compact(params, masks, network, (4,))
    assert small.lost == () and small.params["u"].shape[1] < 6
    x = draw(1, {"x": (1, 4)})["x"]
    want = network(sf.apply_masks(params, masks), x)
    np.testing.assert_allclose(small.apply_fn(small.params, x), want, **NEAR)


def crelu(x, kernel):
    """Write out what the primitive below computes."""
    y = x @ kernel
    return jnp.concatenate([jax.nn.relu(y), jax.nn.relu(-y)], -1)


@pytest.fixture
def fused():
    """Make one primitive of a layer, relu(±x @ kernel): its size is a parameter of its own."""
    primitive = NewPrimitive("crelu_dot")

    def run(x, kernel, *, features):
        assert kernel.shape[1] == features
        return crelu(x, kernel)

    primitive.def_impl(run)
    primitive.def_abstract_eval(
        lambda x, kernel, *, features: x.update(shape=(x.shape[0], 2 * features))
    )
    mlir.register_lowering(primitive, mlir.lower_fun(run, multiple_results=False))
    return lambda x, kernel: primitive.bind(x, kernel, features=kernel.shape[1])


def follow(state, step, operands):
    x, kernel = operands
    state.units.join(x[1], kernel[0])
    return [(x[0], np.concatenate([kernel[1], kernel[1]]))]


def alive(_listing, _step, operands):
    y = operands[0] @ operands[1]  # of bools: whether any term is True
    return [np.concatenate([y, y], 1)]


def varies(listing, step, varying, alive_there):
    ways = [varying[0], alive_there[1]], [alive_there[0], varying[1]]
    return [alive(listing, step, ways[0])[0] | alive(listing, step, ways[1])[0]]


def needs(state, step, nonzero, kept):
    x, kernel = step.operands
    leads = nonzero[kernel][:, state.stays(kernel, kept)[1]].any(1)
    yield state.of(kernel)[0], nonzero[x].any(0) & leads


def shrink(step, operands, _inside, _outside):
    return [step.eqn.primitive.bind(*operands, features=operands[1].shape[1])]


def cost(state, step):
    x, kernel = step.operands
    return (*state.names(x), state.names(kernel)[1])


def setting():
    """Of six units, 1 has no input and 2 no way on; the second layer's unit 0 has no way on."""
    params = draw(0, {"u": (4, 6), "v": (12, 5), "w": (10, 2)})
    masks = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)
    masks["u"] = masks["u"].at[:, 1].set(False)
    masks["v"] = masks["v"].at[jnp.array([2, 8])].set(False)
    masks["w"] = masks["w"].at[jnp.array([0, 5])].set(False)
    return params, masks


def network_of(layer):
    return lambda p, x: layer(layer(x, p["u"]), p["v"]) @ p["w"]


def compacted(layer):
    """Compact the network of two such layers; compare it with the masked one on a batch."""
    params, masks = setting()
    network = network_of(layer)
    small = sf.compact(params, masks, network, (4,))
    x = draw(1, {"x": (7, 4)})["x"]
    want = network_of(crelu)(sf.apply_masks(params, masks), x)
    np.testing.assert_allclose(small.apply_fn(small.params, x), want, **NEAR)
    return small


def test_a_new_primitive_is_one_entry(fused, monkeypatch):
    entry = Primitive(follow, alive=alive, varies=varies, needs=needs, shrink=shrink, cost=cost)
    monkeypatch.setitem(PRIMITIVES, "crelu_dot", entry)
    small, plain = compacted(fused), compacted(crelu)
    shapes = {name: leaf.shape for name, leaf in small.params.items()}
    assert shapes == {"u": (4, 4), "v": (8, 4), "w": (8, 2)}
    assert shapes == {name: leaf.shape for name, leaf in plain.params.items()}
    assert small.multiply_adds == plain.multiply_adds == (24 + 60 + 20, 16 + 32 + 16)
    assert small.lost == () and small.constant == {}


def test_a_primitive_without_an_entry_stays_whole_and_is_named(fused):
    params, _ = setting()
    small = compacted(fused)
    assert small.lost == ("crelu_dot",)
    assert jax.tree.map(jnp.shape, small.params) == jax.tree.map(jnp.shape, params)
    assert small.multiply_adds == (20, 20)  # of what is not followed, none are counted
