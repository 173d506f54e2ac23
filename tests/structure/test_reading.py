"""What the trace of a network says of its leaves: roles, layers, inputs and outputs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from synflow_jax.structure import read_network
from synflow_jax.trees import read_shape

TOKENS = jax.ShapeDtypeStruct((5,), jnp.int32)


def read(network, shape, **shapes):
    params = {name: jnp.ones(dims) for name, dims in shapes.items()}
    return read_network(network, params, read_shape(shape))


def roles(reading):
    return {use.path: use.role for use in reading.uses}


def scanned(order):
    """Four layers along one axis of a kernel; `order` brings them to the front."""

    def network(p, x):
        return jax.lax.scan(lambda h, w: (h @ w, None), x, jnp.moveaxis(p["s"], order, 0))[0]

    return network


def nested(p, x):
    def block(h, ws):
        return jax.lax.scan(lambda h, w: (jax.nn.relu(h @ w), None), h, ws)

    return jax.lax.scan(lambda h, ws: (block(h, ws)[0], None), x, p["s"])[0]


def indexed(p, x):
    for i in range(4):
        x = x @ p["s"][i]
    return x


def unstacked(p, x):
    for w in jnp.unstack(p["s"], axis=1):
        x = x @ w
    return x


def counted(p, x):
    return jax.lax.fori_loop(0, 4, lambda i, h: h @ p["s"][i], x)


@pytest.mark.parametrize(
    ("network", "dims", "layers", "inputs", "outputs"),
    [
        (scanned(0), (4, 8, 8), (0,), (1,), (2,)),
        (scanned(1), (8, 4, 8), (1,), (0,), (2,)),
        (scanned(2), (8, 8, 4), (2,), (0,), (1,)),
        (indexed, (4, 8, 8), (0,), (1,), (2,)),
        (unstacked, (8, 4, 8), (1,), (0,), (2,)),
        (counted, (4, 8, 8), (0,), (1,), (2,)),
        (nested, (2, 3, 8, 8), (0, 1), (2,), (3,)),
        (
            lambda p, x: scanned(0)({"s": p["s"].reshape(6, 8, 8)}, x),
            (2, 3, 8, 8),
            (0, 1),
            (2,),
            (3,),
        ),
        (lambda p, x: x @ p["s"].T, (5, 8), (), (1,), (0,)),
        (lambda p, x: x @ p["s"].reshape(8, 6), (8, 2, 3), (), (0,), (1, 2)),
        (lambda p, x: jnp.einsum("bi,hio->bho", x, p["s"]), (3, 8, 5), (), (1,), (0, 2)),
        (
            lambda p, x: x.astype(jnp.bfloat16) @ p["s"].astype(jnp.bfloat16),
            (8, 5),
            (),
            (0,),
            (1,),
        ),
        (lambda p, x: (x[..., None] * p["s"][None]).sum(-2), (8, 5), (), (0,), (1,)),
    ],
)
def test_axes_of_a_kernel(network, dims, layers, inputs, outputs):
    use = read(network, (8,), s=dims).uses[0]
    assert (use.role, use.layers, use.inputs, use.outputs) == ("kernel", layers, inputs, outputs)


def test_a_number_of_layers_knows_its_axis():
    (stack,) = read(scanned(1), (8,), s=(8, 4, 8)).stacks.values()
    assert (stack, stack.axis, stack.axes) == (4, 1, (1,))


@pytest.mark.parametrize(
    ("network", "role"),
    [
        (lambda p, t: p["s"][t].sum(1) @ p["w"], "table"),
        (lambda p, t: jnp.take(p["s"], t, axis=0).sum(1) @ p["w"], "table"),
        (lambda p, t: (jax.nn.one_hot(t, 20, dtype=jnp.float32) @ p["s"]).sum(1) @ p["w"], "table"),
        (lambda p, t: jax.vmap(lambda i: p["s"][i])(t[0])[None].sum(1) @ p["w"], "table"),
        (lambda p, t: p["s"][t].sum(1) @ p["w"] @ p["s"].T, "table"),  # tied
        (lambda p, t: t.astype(float) @ p["w"][:5] + p["s"][:1], "added"),
        (lambda p, t: (t.astype(float) @ p["w"][:5]) * p["s"][:1], "scale"),
        (lambda p, t: t.astype(float) @ p["w"][:5], "unused"),
        (
            lambda p, t: jnp.concatenate([(t.astype(float) @ p["w"][:5])[None], p["s"][None]], 1),
            "added",
        ),
    ],
)
def test_leaves_that_are_no_kernels(network, role):
    found = roles(read(network, TOKENS, s=(20, 8), w=(8, 8)))
    assert found == {"s": role, "w": "kernel"}


def test_positions_that_are_looked_up_by_constant_numbers_are_added():
    def network(p, x):
        return (x + p["pos"][jnp.arange(4)][None]) @ p["w"]

    assert roles(read(network, (4, 8), pos=(9, 8), w=(8, 3))) == {"pos": "added", "w": "kernel"}


def test_slices_of_one_axis_are_no_kernels():
    def network(p, x):
        def step(h, layer):
            w, scale, v = layer
            return (h @ w) * scale[None] + (h @ v)[:, None], None

        return jax.lax.scan(step, x, (p["w"], p["scale"], p["v"]))[0]

    found = roles(read(network, (8,), w=(3, 8, 8), scale=(3, 8), v=(3, 8)))
    assert found == {"w": "kernel", "scale": "scale", "v": "vector"}


def test_factors_of_a_product_of_leaves_are_kernels_and_its_bias_is_added():
    def lora(p, x):
        return x @ (p["w"] + p["a"] @ p["b"])

    assert roles(read(lora, (8,), w=(8, 8), a=(8, 2), b=(2, 8))) == dict.fromkeys("wab", "kernel")

    def queries(p, x):
        q = p["latents"] @ p["q"] + p["zero"][None]
        return jax.nn.softmax(q @ (x @ p["k"]).mT) @ x

    found = roles(read(queries, (6, 8), latents=(4, 8), q=(8, 8), zero=(8,), k=(8, 8)))
    assert found == {"latents": "kernel", "q": "kernel", "zero": "added", "k": "kernel"}


def test_experts_that_a_router_looks_up_are_kernels():
    def network(p, x):
        best = jnp.argmax(x @ p["router"], -1)
        return jnp.einsum("bi,bio->bo", x, p["experts"][best])

    found = read(network, (8,), router=(8, 3), experts=(3, 8, 5))
    assert roles(found)["experts"] == "kernel"


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(20, 16)(tokens)
        x = x + self.param("positions", nn.initializers.normal(), (1, 5, 16))
        x = x + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x))
        token = self.param("token", nn.initializers.zeros, (1, 1, 16))
        return nn.Dense(4)(jnp.concatenate([token, x], 1)[:, 0])


def test_a_transformer_of_flax():
    model = Transformer()
    params = model.init(jax.random.key(0), jnp.ones((1, 5), jnp.int32))["params"]
    reading = read_network(lambda p, t: model.apply({"params": p}, t), params, read_shape(TOKENS))
    attention = "MultiHeadDotProductAttention_0"
    heads = {f"{attention}/{name}/kernel" for name in ("query", "key", "value", "out")}
    assert reading.kernels == heads | {"Dense_0/kernel"}
    query, out = (reading.by_path[f"{attention}/{name}/kernel"] for name in ("query", "out"))
    assert (query.inputs, query.outputs) == ((0,), (1, 2))
    assert (out.inputs, out.outputs) == ((0, 1), (2,))
    found = roles(reading)
    assert [found["Embed_0/embedding"], found["positions"], found["token"]] == [
        "table",
        "added",
        "added",
    ]
    assert found["LayerNorm_0/scale"] == "scale"


def test_a_codebook_is_a_table():
    def network(p, x):
        h = x @ p["in"]
        nearest = jnp.argmin(((h[:, None] - p["codes"][None]) ** 2).sum(-1), -1)
        return p["codes"][nearest] @ p["out"]

    found = roles(read(network, (8,), **{"in": (8, 4), "codes": (9, 4), "out": (4, 3)}))
    assert found == {"in": "kernel", "codes": "table", "out": "kernel"}

    def straight_through(p, x):
        h = x @ p["in"]
        nearest = jnp.argmax(h @ p["codes"].T, -1)
        return (h + jax.lax.stop_gradient(p["codes"][nearest] - h)) @ p["out"]

    found = roles(read(straight_through, (8,), **{"in": (8, 4), "codes": (9, 4), "out": (4, 3)}))
    assert found == {"in": "kernel", "codes": "table", "out": "kernel"}


def test_leaves_of_a_scalar_and_a_vector_are_told_apart():
    def network(p, x):
        return p["alpha"] * p["gamma"][None] * (x @ p["w"])

    found = roles(read(network, (8,), alpha=(), gamma=(3,), w=(8, 3)))
    assert found == {"alpha": "scale", "gamma": "scale", "w": "kernel"}


def recurrent(cell):
    def network(p, x):
        start = jnp.zeros((x.shape[0], 8))
        return jax.lax.scan(lambda h, now: (cell(p, h, now), None), start, x.swapaxes(0, 1))[0]

    return network


def plain_cell(p, h, x):
    return jax.nn.relu(x @ p["in"] + h @ p["state"])


def learned_start(p, x):
    start = jnp.broadcast_to(p["start"][None], (x.shape[0], 8))
    return jax.lax.scan(lambda h, now: (plain_cell(p, h, now), None), start, x.swapaxes(0, 1))[0]


def test_the_kernel_of_a_state_that_starts_at_zero_is_a_kernel():
    found = read(recurrent(plain_cell), (5, 4), **{"in": (4, 8), "state": (8, 8)})
    assert roles(found) == {"in": "kernel", "state": "kernel"}
    assert found.by_path["state"].roles == {"kernel"}
    shapes = {"in": (4, 8), "state": (8, 8), "start": (8,)}
    assert roles(read(learned_start, (5, 4), **shapes))["start"] == "added"


@pytest.mark.parametrize("cell", [nn.GRUCell, nn.OptimizedLSTMCell, nn.SimpleCell])
def test_all_kernels_of_flax_cells_are_kernels(cell):
    model = nn.RNN(cell(8))
    params = model.init(jax.random.key(0), jnp.ones((1, 5, 4)))["params"]
    reading = read_network(lambda p, x: model.apply({"params": p}, x), params, read_shape((5, 4)))
    assert {use.path for use in reading.uses if use.path.endswith("kernel")} == reading.kernels


def mesh():
    return jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))


MOVED = {
    "flip": lambda w: jnp.flip(w, 0),
    "pad": lambda w: jnp.pad(w, ((0, 0), (1, 0))),
    "set": lambda w: w.at[0].set(0.0),
    "place": lambda w: jnp.zeros((8, 9)).at[:, :8].set(w),
    "update": lambda w: jax.lax.dynamic_update_slice(jnp.zeros((9, 8)), w, (0, 0))[:8],
    "cumsum": lambda w: jnp.cumsum(w, 1),
    "tile": lambda w: jnp.tile(w, (1, 2)),
    "order": lambda w: w[jnp.array([3, 1, 0, 2, 7, 6, 5, 4])],
    "columns": lambda w: w[:, jnp.array([3, 1, 0])],
    "complex": lambda w: jnp.abs(jax.lax.complex(w, w)),
    "sharded": lambda w: jax.shard_map(
        lambda w: 2 * w, mesh=mesh(), in_specs=P("d"), out_specs=P("d")
    )(w),
    "average": lambda w: (w + w.T) / 2 - w.mean(0, keepdims=True),
}


@pytest.mark.parametrize("how", MOVED)
def test_a_kernel_whose_entries_are_moved_is_a_kernel(how):
    (use,) = read(lambda p, x: x @ MOVED[how](p["w"]), (8,), w=(8, 8)).uses
    assert (use.role, use.layers) == ("kernel", ())


def test_a_network_in_shard_map_is_read():
    def network(p, x):
        def local(w, x):
            return jax.lax.psum(x @ w, "d")

        specs = P("d"), P(None, "d")
        return jax.shard_map(local, mesh=mesh(), in_specs=specs, out_specs=P())(p["w"], x)

    (use,) = read(network, (8,), w=(8, 3)).uses
    assert (use.role, use.inputs, use.outputs) == ("kernel", (0,), (1,))


def test_matrices_of_groups_of_rows_are_kernels():
    def network(p, x):
        return jax.lax.ragged_dot(x[0], p["w"], jnp.array([2, 3]))

    (use,) = read(network, (5, 8), w=(2, 8, 3)).uses
    assert (use.role, use.sums, use.outputs) == ("kernel", (1,), (0, 2))


def test_a_transposed_convolution_of_flax_is_a_kernel():
    model = nn.ConvTranspose(4, (3, 3), transpose_kernel=True)
    x = jnp.ones((1, 6, 6, 4))
    params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    network = lambda p, x: model.apply({"params": p}, x)
    assert roles(read_network(network, params, read_shape((6, 6, 4)))) == {
        "bias": "added",
        "kernel": "kernel",
    }


@pytest.mark.parametrize("start", [jnp.zeros, jnp.ones])
def test_recurrent_kernels_that_are_unrolled_are_kernels(start):
    def network(p, x):
        h = start((1, 8))
        for t in range(3):
            h = jax.nn.relu(h @ p["w"] + x[:, t] @ p["u"] + p["b"])
        return h

    found = roles(read(network, (3, 6), w=(8, 8), u=(6, 8), b=(1, 8)))
    assert found == {"w": "kernel", "u": "kernel", "b": "added"}


def test_a_penalty_on_weights_makes_no_source_of_them():
    def loss(p, x):
        out = jax.nn.relu(x @ p["a"]) @ p["b"]
        return jnp.square(out).mean() + 1e-4 * sum(jnp.sum(jnp.square(w)) for w in p.values())

    assert roles(read(loss, (8,), a=(8, 4), b=(4, 3))) == {"a": "kernel", "b": "kernel"}


def test_what_a_product_of_leaves_adds_is_a_source():
    def network(p, x):
        return x @ p["w"] + jax.nn.relu(jnp.ones((1, 4)) @ p["up"]) @ p["down"]

    found = roles(read(network, (8,), w=(8, 3), up=(4, 5), down=(5, 3)))
    assert found == {"w": "kernel", "up": "added", "down": "added"}


@pytest.mark.parametrize(
    ("inputs", "dtype"),
    [
        (lambda t: jnp.sin(jnp.ones((9, 8)))[t], jnp.int32),
        (lambda t: t.astype(jnp.float32)[..., None] * jnp.ones((1, 1, 8)), jnp.int32),
        (lambda t: t.astype(jnp.float32)[..., None] * jnp.ones((1, 1, 8)), bool),
        (lambda t: jnp.zeros((9, 8)).at[t[0]].add(jnp.full((5, 8), 2.0))[None, :5], jnp.int32),
    ],
)
def test_a_layer_above_features_that_are_not_trained_is_a_kernel(inputs, dtype):
    shape = jax.ShapeDtypeStruct((5,), dtype)
    assert roles(read(lambda p, t: inputs(t) @ p["w"], shape, w=(8, 3))) == {"w": "kernel"}


@pytest.mark.parametrize(
    "rows",
    [
        lambda t: jnp.eye(9)[t],
        lambda t: jax.nn.one_hot(t, 9),
        lambda t: jnp.zeros((5, 9)).at[jnp.arange(5), t[0]].set(1.0)[None],
        lambda t: (t[..., None] == jnp.arange(9)[None, None]).astype(jnp.float32),
    ],
)
def test_a_layer_above_one_hots_is_a_table(rows):
    found = roles(read(lambda p, t: rows(t) @ p["e"] @ p["w"], TOKENS, e=(9, 8), w=(8, 3)))
    assert found == {"e": "table", "w": "kernel"}


def test_rows_that_two_vmaps_look_up_lie_along_one_axis():
    def network(p, t):
        return jax.vmap(jax.vmap(lambda i: p["e"][i]))(t).mean(1) @ p["w"]

    use = read(network, TOKENS, e=(9, 8), w=(8, 3)).by_path["e"]
    assert (use.role, use.inputs, use.outputs) == ("table", (0,), (1,))


def test_features_that_tokens_place_are_added():
    def network(p, t):
        nodes = jnp.zeros((10, 8)).at[t[0]].add(p["e"])
        return jax.nn.relu(nodes @ p["w"])[None]

    found = roles(read(network, TOKENS, e=(5, 8), w=(8, 3)))
    assert found == {"e": "added", "w": "kernel"}


def test_columns_that_are_used_one_by_one_are_outputs():
    def network(p, x):
        return {"mean": x @ p["w"][:, 0], "variance": x @ p["w"][:, 1]}

    (use,) = read(network, (8,), w=(8, 2)).uses
    assert (use.role, use.layers, use.inputs, use.outputs) == ("kernel", (), (0,), (1,))


def test_a_leaf_behind_an_unknown_operation_is_named_so():
    def network(p, x):
        return x @ jnp.linalg.qr(p["kernel"])[0] + x @ jnp.linalg.qr(p["embedding"])[0]

    found = read(network, (8,), kernel=(8, 8), embedding=(8, 8))
    assert roles(found) == {"kernel": "unclear", "embedding": "unclear"}


def test_an_empty_leaf_is_read():
    def network(p, x):
        return x @ p["w"] + p["none"].reshape(3, 0).sum()

    found = roles(read(network, (8,), none=(0, 3), w=(8, 3)))
    assert found == {"none": "empty", "w": "kernel"}


def test_the_first_and_the_last_kernels():
    def network(p, x):
        h = x["u"] @ p["u"] + x["v"] @ p["v"]
        h = jax.lax.scan(lambda h, w: (jax.nn.relu(h @ w), None), h, p["deep"])[0]
        both = jax.nn.relu(h @ p["both"] + h)
        return {"mean": both[:, :2] * p["scale"][None], "rest": both[:, 2:] @ p["head"]}

    shape = {name: jax.ShapeDtypeStruct((4,), jnp.float32) for name in "uv"}
    found = read(
        network,
        shape,
        u=(4, 8),
        v=(4, 8),
        deep=(3, 8, 8),
        both=(8, 8),
        scale=(2,),
        head=(6, 2),
    )
    assert found.first == {"u", "v"}
    assert found.last == {"deep", "both", "head"}


def test_leaves_that_are_returned_are_no_kernels():
    def network(p, x):
        codes = jax.nn.one_hot(jnp.argmax(x @ p["w"], -1), 3) @ p["codes"]
        return {"mean": x @ p["w"], "log_std": p["log_std"], "codes": codes}

    found = roles(read(network, (8,), w=(8, 3), log_std=(1, 3), codes=(3, 5)))
    assert found == {"w": "kernel", "log_std": "added", "codes": "table"}
