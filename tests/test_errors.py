"""Bad input gets an error at the public function that says what came and what to do."""

import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from nets import CONV_SHAPE, WIDTHS, all_true, batches, mlp, mlp_params, residual, residual_params
from nets import squared_loss as loss

import synflow_jax as sf

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


@pytest.mark.parametrize("rho", ["ten", None, [1, 2]])
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


def test_dense_flow_of_zero_names_the_leaves():
    params = mlp_params(0, bias=0.0)
    params["layer2"] = jax.tree.map(jnp.zeros_like, params["layer2"])
    with pytest.raises(ValueError, match=r"above 0 and finite.*all zero:.*layer2/kernel"):
        synflow(params)


def test_dense_flow_that_overflows_names_the_remedy():
    params = jax.tree.map(lambda leaf: leaf * 1e20, mlp_params(0))
    with pytest.raises(ValueError, match=r"above 0 and finite.*float64"):
        synflow(params)
    with pytest.raises(ValueError, match=r"not finite.*float64"):
        sf.log2_flow(params, mlp, SHAPE)


def test_under_a_trace_a_dead_flow_is_in_the_info():
    params = mlp_params(0, bias=0.0)
    params["layer2"] = jax.tree.map(jnp.zeros_like, params["layer2"])
    saliency = sf.synflow_saliency(mlp, SHAPE)
    info = jax.jit(lambda p: sf.prune(p, saliency, 2.0, 2)[1])(params)
    assert bool(jnp.isneginf(info.log2_flow).all())


@pytest.mark.parametrize("method", [sf.snip, sf.grasp])
def test_batches(method):
    with pytest.raises(TypeError, match="pass list"):
        method(PARAMS, loss, iter(batches()), 2.0)
    with pytest.raises(TypeError, match="pass list"):
        method(PARAMS, loss, (b for b in batches()), 2.0)
    with pytest.raises(ValueError, match="at least one batch"):
        method(PARAMS, loss, [], 2.0)
    with pytest.raises(TypeError, match="must be a list of batches"):
        method(PARAMS, loss, 3, 2.0)


@pytest.mark.parametrize("method", [sf.snip, sf.grasp])
def test_losses(method):
    with pytest.raises(TypeError, match="loss_fn must return a floating scalar"):
        method(PARAMS, lambda p, b: mlp(p, b[0]), batches(), 2.0)
    with pytest.raises(ValueError, match="nan on batch 1 of batches"):
        broken = batches()
        broken[1] = (broken[1][0] * jnp.nan, broken[1][1])
        method(PARAMS, loss, broken, 2.0)
    with pytest.raises(TypeError, match="loss_fn must be a function"):
        method(PARAMS, None, batches(), 2.0)


def test_temperature():
    with pytest.raises(ValueError, match="temperature must be above 0"):
        sf.cross_entropy(mlp, 0.0)


def test_masks_that_do_not_fit():
    masks = all_true(PARAMS)
    with pytest.raises(ValueError, match="tree structure of params"):
        sf.apply_masks(PARAMS, {"layer0": masks["layer0"]})
    wrong = {**masks, "layer0": {**masks["layer0"], "bias": jnp.ones(3, bool)}}
    with pytest.raises(ValueError, match=r"'layer0/bias' is \(7,\) in params and \(3,\)"):
        sf.apply_masks(PARAMS, wrong)
    floats = jax.tree.map(lambda m: m.astype(jnp.float32), masks)
    with pytest.raises(TypeError, match="must be bool arrays"):
        sf.apply_masks(PARAMS, floats)
    with pytest.raises(ValueError, match="densities must have the tree structure"):
        sf.random(jax.random.key(0), PARAMS, densities={})
    with pytest.raises(TypeError, match="masks must be bool"):
        sf.shuffle(jax.random.key(0), floats)


def test_random_wants_rho_or_masks():
    key = jax.random.key(0)
    with pytest.raises(TypeError, match="random needs rho"):
        sf.random(key, PARAMS)
    with pytest.raises(ValueError, match="rho must not be given"):
        sf.random(key, PARAMS, 2.0, densities=all_true(PARAMS))
    with pytest.raises(TypeError, match=r"random key such as jax\.random\.key"):
        sf.random(0, PARAMS, 2.0)
    with pytest.raises(TypeError, match="erk needs a rho of known value"):
        jax.jit(lambda r: sf.random(key, PARAMS, r, densities=sf.erk))(2.0)


def test_old_style_keys_work():
    assert int(sf.random(jax.random.PRNGKey(0), {"w": jnp.ones((4, 4))}, 2.0)["w"].sum()) == 8


def test_reinitialise_wants_the_same_tree():
    with pytest.raises(ValueError, match="tree structure of params"):
        sf.reinitialise(jax.random.key(0), PARAMS, lambda key: {})


def test_own_saliency_and_own_scope():
    with pytest.raises(TypeError, match="saliency must be a function"):
        sf.prune(PARAMS, None, 2.0)
    with pytest.raises(ValueError, match="tree structure of params"):
        sf.prune(PARAMS, lambda p, m: p["layer0"], 2.0)
    with pytest.raises(TypeError, match="a floating score a weight"):
        sf.prune(PARAMS, lambda p, m: m, 2.0)
    with pytest.raises(ValueError, match="finite scores: round 1"):
        sf.prune(PARAMS, lambda p, m: jax.tree.map(lambda leaf: leaf * jnp.nan, p), 2.0, 1)
    with pytest.raises(ValueError, match="scope must return finite counts"):
        sf.prune(PARAMS, sf.magnitude_saliency(), 2.0, scope=lambda shapes, d: d)


def test_fewer_weights_than_layers_warns_with_the_largest_rho():
    with pytest.warns(sf.CollapseWarning, match=r"N/L = 33\.6667"):
        sf.magnitude(PARAMS, 60.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sf.magnitude(PARAMS, 101 / 3)


def test_report_and_searches():
    with pytest.raises(ValueError, match="both apply_fn and shape"):
        sf.report(PARAMS, all_true(PARAMS), mlp)
    with pytest.raises(ValueError, match="tolerance must be above 0"):
        sf.critical_compression(lambda rho: sf.magnitude(PARAMS, rho), PARAMS, tolerance=0)


def test_keep_masks_wants_a_transform_and_params():
    masks = all_true(PARAMS)
    with pytest.raises(TypeError, match="tx must be an Optax transform"):
        sf.keep_masks(0.1, masks)


def test_errors_leave_the_params_alone():
    params = residual_params(0)
    before = jax.tree.map(jnp.copy, params)
    with pytest.raises(ValueError, match="apply_fn"):
        sf.synflow(params, residual, (3,), 2.0)
    sf.synflow(params, residual, CONV_SHAPE, 2.0, rounds=2)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), before, params))
