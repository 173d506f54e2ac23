"""Tables that are looked up: left whole by default, and scored by all of their rows alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf

TOKENS = jax.ShapeDtypeStruct((5,), jnp.int32)
RNG = np.random.default_rng(0)


def draw(**shapes):
    return {name: jnp.asarray(RNG.standard_normal(s), jnp.float32) for name, s in shapes.items()}


def every(path, leaf):
    return True


def language_model(p, tokens):
    return jax.nn.relu(p["embeddings"][tokens].mean(1)) @ p["out"]


def tied(p, tokens):
    return jax.nn.relu(p["e"][tokens].mean(1) @ p["w"]) @ p["e"].T


def top(scores, count):
    """The masks of the largest scores, of all leaves together."""
    cut = np.sort(np.concatenate([s.ravel() for s in scores.values()]))[-count]
    return {name: s >= cut for name, s in scores.items()}


@pytest.mark.parametrize("mode", [lambda f: f, sf.flow_mode], ids=["plain", "flow mode"])
def test_a_table_is_left_whole_by_default(mode):
    params = draw(embeddings=(20, 8), out=(8, 20))
    masks = sf.synflow(params, mode(language_model), TOKENS, 2)
    assert bool(masks["embeddings"].all())
    assert int(masks["out"].sum()) == 80
    table = sf.report(params, masks, mode(language_model), TOKENS)
    assert [(one.path, one.why) for one in table.left] == [
        ("embeddings", "looked up by whole numbers")
    ]


@pytest.mark.parametrize("mode", [lambda f: f, sf.flow_mode], ids=["plain", "flow mode"])
@pytest.mark.filterwarnings("ignore::synflow_jax.CollapseWarning")  # one round
def test_a_chosen_table_is_scored_by_all_of_its_rows(mode):
    params = draw(embeddings=(20, 8), out=(8, 20))
    masks = sf.synflow(params, mode(language_model), TOKENS, 2, rounds=1, prunable=every)
    e, out = (np.abs(np.asarray(params[k], np.float64)) for k in ("embeddings", "out"))
    # Ones over the vocabulary: R = 1ᵀ|E||W|1.
    scores = {"embeddings": e * out.sum(1)[None], "out": e.sum(0)[:, None] * out}
    want = top(scores, 160)
    assert all((np.asarray(masks[name]) == want[name]).all() for name in want)


@pytest.mark.filterwarnings("ignore::synflow_jax.CollapseWarning")  # one round
def test_a_tied_table_is_scored_by_its_rows_and_by_its_products():
    params = draw(e=(20, 8), w=(8, 8))
    masks = sf.synflow(params, tied, TOKENS, 4, rounds=1, prunable=every)
    e, w = (np.abs(np.asarray(params[k], np.float64)) for k in ("e", "w"))
    hidden, out = e.sum(0) @ w, e.sum(0)
    scores = {"e": e * ((w @ out)[None] + hidden[None]), "w": w * np.outer(e.sum(0), out)}
    want = top(scores, 56)
    assert all((np.asarray(masks[name]) == want[name]).all() for name in want)


def test_no_row_of_a_chosen_table_is_dead():
    params = draw(embeddings=(20, 8), out=(8, 20))
    masks = sf.synflow(params, language_model, TOKENS, 2, prunable=every, schedule=sf.certified())
    assert int(masks["embeddings"].any(1).sum()) == 20
    density = sf.effective_density(params, masks, language_model, TOKENS, prunable=every)
    assert density == 0.5


def test_a_table_under_another_name_and_inside_a_scan_is_one_too():
    def network(p, tokens):
        def step(h, t):
            return h + p["weight"][t] @ p["up"], None

        start = jnp.zeros((tokens.shape[0], 8))
        return jax.lax.scan(step, start, tokens.T)[0] @ p["out"]

    params = draw(weight=(20, 4), up=(4, 8), out=(8, 3))
    masks = sf.synflow(params, network, TOKENS, 2, prunable=every)
    # The rows of one token are as good as those of another.
    assert int(masks["weight"].any(1).sum()) > 15
    assert bool(sf.synflow(params, network, TOKENS, 2)["weight"].all())


def test_one_choice_serves_methods_with_and_without_a_network():
    params = draw(weight=(20, 4), out=(4, 3))

    def network(p, tokens):
        return p["weight"][tokens].sum(1) @ p["out"]

    prunable = sf.plan.kernels(params, network, TOKENS)
    key = jax.random.key(0)
    for masks in (
        sf.synflow(params, network, TOKENS, 2, prunable=prunable),
        sf.magnitude(params, 2, prunable=prunable),
        sf.random(key, params, 2, prunable=prunable),
    ):
        assert bool(masks["weight"].all())
        assert int(masks["out"].sum()) == 6
    assert prunable == sf.plan.kernels(params, network, TOKENS)


def test_data_methods_read_the_loss():
    params = draw(weight=(20, 4), out=(4, 3))

    def loss(p, batch):
        tokens, labels = batch
        logits = p["weight"][tokens].sum(1) @ p["out"]
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=-1)
        return -chosen.mean()

    batch = jnp.asarray(RNG.integers(0, 20, (6, 5))), jnp.asarray(RNG.integers(0, 3, 6))
    for method in (sf.snip, sf.grasp):
        masks = method(params, loss, [batch], 2)
        assert bool(masks["weight"].all())
        assert int(masks["out"].sum()) == 6


def test_a_table_looked_up_by_two_vmaps_is_scored_by_all_of_its_rows():
    params = draw(e=(10, 8), o=(8, 4))

    def network(p, tokens):
        return jax.vmap(jax.vmap(lambda at: p["e"][at]))(tokens).mean(1) @ p["o"]

    saliency = sf.synflow_saliency(network, TOKENS).fitted(params, (True, True))
    scores = saliency(params, jax.tree.map(lambda p: jnp.ones(p.shape, bool), params))
    e, o = (np.abs(np.asarray(params[k], np.float64)) for k in "eo")
    np.testing.assert_allclose(scores["e"], e * o.sum(1)[None], rtol=1e-5)


TIED = {
    "one-hot": lambda p, t: jax.nn.one_hot(t, 10) @ p["e"],
    "scaled": lambda p, t: (p["e"] * 2)[t] / 2,
    "transposed": lambda p, t: jnp.moveaxis(p["e"].T[:, t], 0, -1),
    "vmapped": lambda p, t: jax.vmap(jax.vmap(lambda at: p["e"][at]))(t),
    "placed": lambda p, t: jax.device_put(p["e"], jax.devices()[0])[t],
}


@pytest.mark.parametrize("lookup", TIED)
def test_a_tied_table_is_even_however_it_is_looked_up(lookup):
    params = draw(e=(10, 8))

    def network(p, tokens):
        return TIED[lookup](p, tokens).mean(1) @ p["e"].T

    saliency = sf.synflow_saliency(network, TOKENS).fitted(params, (True,))
    scores = saliency(params, {"e": jnp.ones((10, 8), bool)})["e"]
    e = np.abs(np.asarray(params["e"], np.float64))
    # R = Σ_d (Σ_v e_vd)², so that S = 2 e_vd Σ_v e_vd.
    np.testing.assert_allclose(scores, 2 * e * e.sum(0)[None], rtol=1e-5)


def test_a_tied_table_that_a_loop_looks_up_is_refused_in_full_words():
    def network(p, tokens):
        def step(total, token):
            return total + p["e"][token], None

        total = jax.lax.scan(step, jnp.zeros((1, 8)), tokens.T)[0]
        return total @ p["e"].T

    params = draw(e=(10, 8))
    with pytest.raises(ValueError, match=r"^a table that is also used in products must be looked"):
        sf.synflow(params, network, TOKENS, 2, prunable=every)
