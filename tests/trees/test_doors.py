"""Arrays of other libraries, byte orders and kinds: converted, or refused by name."""

import inspect
import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

import synflow_jax as sf
from synflow_jax import compaction, files, flow, measure, plan, pruning, show
from synflow_jax.trees import clip, listed_names, shown

pytestmark = pytest.mark.filterwarnings("ignore:check of the network")
RNG = np.random.default_rng(0)
WEIGHTS = {
    "in": RNG.standard_normal((6, 8)).astype(np.float32),
    "out": RNG.standard_normal((8, 3)).astype(np.float32),
}
DATA = [(RNG.standard_normal((4, 6)).astype(np.float32), np.array([0, 1, 2, 0]))]


def network(params, x):
    return jax.nn.relu(x @ params["in"]) @ params["out"]


def loss(params, batch):
    x, labels = batch
    return optax.softmax_cross_entropy_with_integer_labels(network(params, x), labels).mean()


class Tensor:
    """Stands for a PyTorch tensor with a gradient on another device."""

    def __init__(self, array, dtype=None, away=True):
        self.array, self.away, self.shape = np.asarray(array), away, np.shape(array)
        self.dtype = dtype or f"torch.{self.array.dtype}"

    def detach(self):
        return Tensor(self.array, self.dtype, self.away)

    def cpu(self):
        return Tensor(self.array, self.dtype, away=False)

    def float(self):
        return Tensor(np.asarray(self.array, np.float32), away=False)

    def __array__(self, dtype=None, copy=None):
        if self.away or self.dtype == "torch.bfloat16":
            raise TypeError("can't convert this tensor to numpy")
        return self.array if dtype is None else self.array.astype(dtype)


class Variable:
    """Stands for a Keras variable, whose dtype is a string."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, str(array.dtype)

    def __array__(self, dtype=None, copy=None):
        return self.array if dtype is None else self.array.astype(dtype)


FOREIGN = {
    "tensors": Tensor,
    "variables": Variable,
    "big endian": lambda leaf: leaf.astype(">f4"),
    "long double": lambda leaf: leaf.astype(np.longdouble),
    "read only": lambda leaf: np.frombuffer(leaf.tobytes(), np.float32).reshape(leaf.shape),
    "Fortran order": np.asfortranarray,
}
METHODS = {
    "synflow": lambda p: sf.synflow(p, network, (6,), 3),
    "magnitude": lambda p: sf.magnitude(p, 3),
    "random": lambda p: sf.random(jax.random.key(0), p, 3),
    "snip": lambda p: sf.snip(p, loss, DATA, 3),
    "grasp": lambda p: sf.grasp(p, loss, DATA, 3),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("method", METHODS)
def test_masks_of_foreign_arrays_are_those_of_the_same_numbers(kind, method):
    want = METHODS[method](WEIGHTS)
    got = METHODS[method]({name: FOREIGN[kind](leaf) for name, leaf in WEIGHTS.items()})
    for name, mask in want.items():
        np.testing.assert_array_equal(got[name], mask)


def test_a_tensor_of_bfloat16_keeps_its_bits():
    rounded = {name: leaf.astype(ml_dtypes.bfloat16) for name, leaf in WEIGHTS.items()}
    tensors = {name: Tensor(leaf, "torch.bfloat16") for name, leaf in rounded.items()}
    kept = sf.apply_masks(tensors, jax.tree.map(lambda leaf: np.ones(leaf.shape, bool), WEIGHTS))
    for name, leaf in rounded.items():
        assert kept[name].dtype == jnp.bfloat16
        np.testing.assert_array_equal(kept[name], leaf)


@pytest.mark.parametrize("method", [sf.snip, sf.grasp])
def test_batches_of_tensors_are_read_as_numbers(method):
    """A loader of PyTorch yields lists of tensors, beside names that the loss does not use."""

    class Loader:
        def __iter__(self):
            yield from ([Tensor(x), Tensor(labels)] for x, labels in DATA)

    want, got = method(WEIGHTS, loss, DATA, 3), method(WEIGHTS, loss, Loader(), 3)
    for name, mask in want.items():
        np.testing.assert_array_equal(got[name], mask)


REFUSED = {
    "objects": (lambda leaf: leaf.astype(object), "an array of dtype object"),
    "strings": (lambda leaf: leaf.astype(str), "which holds no numbers of one kind"),
    "dates": (lambda leaf: np.zeros(leaf.shape, "M8[s]"), "which holds no numbers"),
    "records": (lambda leaf: np.zeros(leaf.shape, "i4,f4"), "which holds no numbers"),
    "shapes": (
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
        "a shape without numbers: pass the arrays themselves",
    ),
    "tensors that NumPy cannot read": (
        lambda leaf: type("Odd", (), {"shape": leaf.shape, "dtype": "q4", "__array__": None})(),
        "that NumPy cannot read: pass a NumPy or JAX array",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("method", METHODS)
def test_what_holds_no_numbers_is_refused(kind, method):
    make, words = REFUSED[kind]
    with pytest.raises(TypeError) as caught:
        METHODS[method]({name: make(leaf) for name, leaf in WEIGHTS.items()})
    assert str(caught.value).startswith("params: leaf 'in' is a")
    assert words in str(caught.value)


MASKS = {name: RNG.random(leaf.shape) < 0.7 for name, leaf in WEIGHTS.items()}
TAKES = {
    sf.apply_masks: (),
    sf.compact: (network, (6,)),
    sf.effective_density: (network, (6,)),
    measure.dead_branches: (network, (6,)),
    files.to_csr: (),
    sf.report: (network, (6,)),
}


@pytest.mark.parametrize("call", TAKES, ids=lambda call: call.__name__)
def test_params_and_masks_are_converted_where_both_are_taken(call):
    tensors, tokens = (
        {name: Tensor(leaf) for name, leaf in tree.items()} for tree in (WEIGHTS, MASKS)
    )
    assert str(call(tensors, tokens, *TAKES[call])) == str(call(WEIGHTS, MASKS, *TAKES[call]))


def test_every_public_function_of_params_has_this_door():
    """Some hand the params on at once to one that has it."""
    onward = {"synflow", "synflow_l2", "magnitude", "snip", "grasp", "save_masks", "to_linen"}
    onward |= {"to_nnx", "gradient_norm", "weight_energy"}
    for module in (sf, compaction, files, flow, measure, plan, pruning, show):
        for name in module.__all__:
            fn = getattr(module, name)
            if inspect.isfunction(fn) and "params" in inspect.signature(fn).parameters:
                assert hasattr(fn, "__wrapped__") or name in onward, name


def test_shapes_do_where_no_number_is_read():
    shapes = jax.eval_shape(lambda: WEIGHTS)
    assert measure.layer_order(shapes, network, (6,)) == ("in", "out")
    assert measure.max_compression(shapes, network, (6,)) == (48 + 24) / 2


# Numbers beyond what masks are exact for.


@pytest.mark.parametrize("size", [1e36, 1e-37, 1e-41])
def test_weights_of_sizes_that_sums_do_not_hold_are_refused(size):
    far = {**WEIGHTS, "out": (WEIGHTS["out"] / np.abs(WEIGHTS["out"]).max() * size)}
    far["out"] = far["out"].astype(np.float32)
    with pytest.raises(ValueError, match=r"a largest .θ. between .* and 'out' has"):
        sf.synflow(far, network, (6,), 3)


@pytest.mark.parametrize("power", [-99, -60, 40, 110])
def test_masks_are_exact_within_the_range(power):
    """A power of two on a layer changes no ranking of SynFlow."""
    top = np.abs(WEIGHTS["in"]).max()
    far = {**WEIGHTS, "in": np.ldexp(WEIGHTS["in"], power - math.ceil(math.log2(top)) + 1)}
    want, got = (sf.synflow(p, network, (6,), 4) for p in (WEIGHTS, far))
    for name, mask in want.items():
        np.testing.assert_array_equal(got[name], mask)


def test_subnormal_layers_are_refused_and_zeros_are_not():
    low = {**WEIGHTS, "in": np.ldexp(WEIGHTS["in"], -132)}
    assert low["in"].any()
    with pytest.raises(ValueError, match="'in' has a subnormal number"):
        sf.magnitude(low, 2)
    zero = {**WEIGHTS, "in": np.zeros_like(WEIGHTS["in"]), "bias": np.full(3, 1e-42, np.float32)}
    assert int(sf.magnitude(zero, 3)["out"].sum()) == 24


def test_empty_leaves_and_numbers_that_jax_would_round_away():
    empty = {**WEIGHTS, "none": np.zeros((0, 3), np.float32), "row": np.zeros(0, np.float32)}
    masks = sf.synflow(empty, network, (6,), 3)
    assert int(masks["in"].sum()) + int(masks["out"].sum()) == 24
    with pytest.raises(ValueError, match="'w' has a subnormal number"):
        sf.magnitude({"w": np.array([[1e-200, 2e-200], [3e-200, 4e-200]])}, 2)


# Names.


def test_long_names_are_clipped_in_messages():
    long = "x" * 4_000_000
    with pytest.raises(TypeError) as caught:
        sf.magnitude({long: 1.0}, 3)
    assert len(str(caught.value)) < 1000
    with pytest.raises(ValueError, match="params must be finite") as caught:
        sf.magnitude({long: np.full((2, 2), np.nan, np.float32)}, 3)
    assert len(str(caught.value)) < 1000
    assert len(listed_names([long] * 20)) < 3000
    assert shown("a") == "'a'"
    assert clip("ab" * 3000, 10) == "ababa … babab"


def test_thousands_of_names_are_not_all_listed():
    many = {f"leaf{k}": np.ones((2, 2), np.float32) for k in range(10_000)}
    for choose in (sf.matching("other"), lambda path, leaf: False):
        with pytest.raises(ValueError, match="and 9992 more") as caught:
            sf.magnitude(many, 2, prunable=choose)
        assert len(str(caught.value)) < 1000
    with pytest.raises(ValueError, match="and 9992 more"):
        sf.magnitude(many, {"other": 2})


def test_many_leaves_and_odd_keys():
    odd = {f"a/{k}[{k % 7}]*": np.full((1, 2), k + 1.0, np.float32) for k in range(2_000)}
    masks = sf.magnitude({"odd": odd, "rest": [{(1, 2): np.zeros((2, 2), np.float32)}]}, 2)
    kept = sum(int(mask.sum()) for mask in jax.tree.leaves(masks))
    assert kept == math.ceil((4_000 + 4) / 2)
