"""Bad input gets an error at the public function that says what came and what to do."""

from functools import partial, wraps

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import synflow_jax as sf
from tests.support.nets import WIDTHS, batches, mlp, mlp_params
from tests.support.nets import squared_loss as loss

PARAMS = mlp_params(0)
SHAPE = WIDTHS[:1]


def synflow(params=PARAMS, apply_fn=mlp, shape=SHAPE, rho=4.0, **rest):
    return sf.synflow(params, apply_fn, shape, rho, rounds=rest.pop("rounds", 3), **rest)


@pytest.mark.parametrize(
    ("rho", "message"),
    [
        (0.1, "pass rho=10"),
        (0.0, "at least 1, got 0"),
        (-2.0, "at least 1, got -2"),
        (float("nan"), "finite number.*got nan"),
        (float("inf"), "finite number.*got inf"),
    ],
)
def test_rho_that_is_no_ratio(rho, message):
    for call in (
        lambda: synflow(rho=rho),
        lambda: sf.magnitude(PARAMS, rho),
        lambda: sf.random(jax.random.key(0), PARAMS, rho),
        lambda: sf.snip(PARAMS, loss, batches(), rho),
        lambda: sf.grasp(PARAMS, loss, batches(), rho),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("rho", ["ten", "4", True, None, [1, 2]])
def test_rho_of_another_kind(rho):
    with pytest.raises(TypeError, match="rho must be a number"):
        sf.magnitude(PARAMS, rho)


def test_traced_rho_must_be_a_floating_scalar():
    for bad in (jnp.int32(4), jnp.ones(3)):
        with pytest.raises(TypeError, match="rho must be a floating scalar"):
            jax.jit(lambda r: sf.magnitude(PARAMS, r))(bad)


@pytest.mark.parametrize(("rounds", "kind"), [(0, ValueError), (-1, ValueError), (2.0, TypeError)])
def test_rounds(rounds, kind):
    with pytest.raises(kind, match="rounds must be"):
        synflow(rounds=rounds)


@pytest.mark.parametrize(
    ("saliency", "said"),
    [
        ("magnitude", "saliency must be a function .* got 'magnitude'"),
        (sf.synflow_saliency, r"saliency must be synflow_saliency\(…\), with brackets"),
        (sf.magnitude, r"saliency must be a function .* got <function magnitude"),
    ],
)
def test_what_is_no_saliency(saliency, said):
    with pytest.raises(TypeError, match=said):
        sf.prune({"w": jnp.ones((2, 2))}, saliency, 2.0, 1)


def test_any_function_of_a_user_is_a_saliency():
    def scores(params, masks):
        return params

    bare = {"scores": scores}  # it has no __name__: what is written here is of no module
    exec("def of_no_module(params, masks):\n    return scores(params, masks)", bare)
    wrapped = wraps(sf.saliency.magnitude_saliency)(lambda params, masks: params)
    for saliency in (scores, bare["of_no_module"], wrapped, partial(scores), jax.jit(scores)):
        masks, _ = sf.prune({"w": jnp.array([[1.0, 2.0]])}, saliency, 2.0, 1)
        assert masks["w"].tolist() == [[False, True]]


def test_no_prunable_leaf_lists_what_there_is():
    with pytest.raises(ValueError, match=r"no prunable leaf.*'norm/scale'"):
        sf.magnitude({"norm": {"scale": jnp.ones(3)}}, 2.0)
    with pytest.raises(ValueError, match="no prunable leaf"):
        sf.magnitude({}, 2.0)


def test_leaves_that_are_no_arrays():
    with pytest.raises(TypeError, match="leaf 'act' is a function"):
        sf.magnitude({"act": lambda x: x, "w": jnp.ones((2, 2))}, 2.0)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.complex64, jnp.bool_])
def test_only_floating_leaves_can_be_chosen(dtype):
    params = {"table": jnp.ones((2, 2), dtype), "w": jnp.ones((2, 2))}
    assert bool(sf.magnitude(params, 2.0)["table"].all())
    with pytest.raises(TypeError, match=r"prunable chose leaf 'table'"):
        sf.magnitude(params, 2.0, prunable=lambda path, leaf: True)
    with pytest.raises(TypeError, match="prunable must be a function"):
        sf.magnitude(params, 2.0, prunable="table")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_params_that_are_not_finite_are_named(bad):
    params = mlp_params(0)
    params["layer1"]["bias"] = params["layer1"]["bias"].at[2].set(bad)
    for call in (lambda: synflow(params), lambda: sf.magnitude(params, 2.0)):
        with pytest.raises(ValueError, match=r"NaN or infinity in layer1/bias$"):
            call()


def test_shape_that_does_not_fit_says_what_the_network_saw():
    with pytest.raises(ValueError, match=r"float32\[1, 9\].*without the batch axis"):
        synflow(shape=(9,))
    with pytest.raises(ValueError, match=r"float32\[1, 1, 5\]"):
        sf.log2_flow(PARAMS, mlp_of_rank_two, (1, 5))


def mlp_of_rank_two(params, x):
    if x.ndim != 2:
        raise ValueError("two axes please")
    return mlp(params, x)


@pytest.mark.parametrize("shape", [5, "5", None, (5.0,), {"x": (5,)}])
def test_shape_that_is_no_shape(shape):
    with pytest.raises(TypeError, match="shape must be one example without the batch axis"):
        synflow(shape=shape)


def test_shape_with_an_empty_axis():
    with pytest.raises(ValueError, match="sizes of at least 1"):
        synflow(shape=(0,))


def test_apply_fn_without_a_floating_output():
    with pytest.raises(TypeError, match="must return a floating array"):
        synflow(apply_fn=lambda p, x: jnp.argmax(mlp(p, x)))
    with pytest.raises(TypeError, match="must return a floating array"):
        synflow(apply_fn=lambda p, x: None)
    with pytest.raises(TypeError, match="apply_fn must be a function"):
        synflow(apply_fn=None)


class Noisy(nn.Module):
    """A network that is left in training mode."""

    train: bool = True

    @nn.compact
    def __call__(self, x):
        """Dense, BatchNorm, dropout."""
        x = nn.BatchNorm(use_running_average=not self.train)(nn.Dense(3)(x))
        return nn.Dropout(0.5, deterministic=not self.train)(x)


def test_training_mode_is_named():
    model = Noisy()
    variables = Noisy(train=False).init(jax.random.key(0), jnp.ones((1, 4)))
    with pytest.raises(ValueError, match=r"evaluation mode.*mutable"):
        sf.synflow(variables, model.apply, (4,), 2.0)
    with pytest.raises(ValueError, match=r"evaluation mode.*batch_stats"):
        sf.synflow(
            variables,
            lambda v, x: model.apply(
                v, x, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}
            ),
            (4,),
            2.0,
        )
    masks = sf.synflow(variables, Noisy(train=False).apply, (4,), 2.0)
    assert int(masks["params"]["Dense_0"]["kernel"].sum()) == 6


class Dropped(nn.Module):
    """Dropout alone, left on."""

    @nn.compact
    def __call__(self, x):
        """Dense, dropout."""
        return nn.Dropout(0.5, deterministic=False)(nn.Dense(3)(x))


def test_missing_rngs_are_named():
    variables = {"params": {"Dense_0": {"kernel": jnp.ones((4, 3)), "bias": jnp.zeros(3)}}}
    with pytest.raises(ValueError, match=r"evaluation mode.*rngs"):
        sf.synflow(variables, Dropped().apply, (4,), 2.0)


def test_empty_leaves_are_no_layers():
    params = {"a": jnp.ones((4, 4)), "none": jnp.ones((0, 5))}
    assert sf.measure.max_compression(params) == 16.0
    assert int(sf.magnitude(params, 4.0)["a"].sum()) == 4


def test_schedules_and_scopes_of_your_own():
    with pytest.raises(TypeError, match="schedule must be a function"):
        sf.magnitude(PARAMS, 2.0, schedule="linear")
    with pytest.raises(TypeError, match="scope must be a function"):
        sf.magnitude(PARAMS, 2.0, scope="layerwise")
    with pytest.raises(ValueError, match="densities from 0 to 1"):
        sf.magnitude(PARAMS, 2.0, schedule=lambda k, n, rho: 2.0 * k)
    with pytest.raises(ValueError, match="densities from 0 to 1"):
        sf.magnitude(PARAMS, 2.0, schedule=lambda k, n, rho: 0.5)
