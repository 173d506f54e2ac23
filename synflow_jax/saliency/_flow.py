"""Saliencies by flow: SynFlow, where |θ| enters the network, and SynFlow-L2, where θ² does."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from synflow_jax.flow import Network, Outputs, as_network, choose_outputs, even_rows
from synflow_jax.saliency._gradient import highest_precision, value_and_scores
from synflow_jax.saliency._losses import find_losses, output_shapes
from synflow_jax.saliency._objectives import (
    absolute,
    flow_open_and_closed,
    squared,
)
from synflow_jax.saliency._protocol import Pruned, Saliency
from synflow_jax.scaled import Scaled, scaled, unit_exponent, unscale
from synflow_jax.selection import Leaves
from synflow_jax.structure import Reading, read_network
from synflow_jax.trees import (
    ApplyFn,
    Function,
    Inputs,
    Masks,
    Params,
    Scores,
    all_true,
    as_function,
    floating_dtype,
    is_traced,
    is_weight,
    masked,
    max_abs,
    pick,
    place,
    read_shape,
    widen,
)

EXTREME = 2.0**8  # weights are of usual size while the largest is between this and its inverse
EXTREME_BITS = 96.0  # what is assumed of leaves where some are not


@partial(jax.jit, static_argnames=("inputs", "sizes"))
def _flow(
    params: Params,
    closing: tuple[Any, ...] | None,
    apply_fn: Function,
    inputs: Inputs,
    sizes: tuple[float, ...],
    scales: tuple[jax.Array, ...] = (),
) -> Scaled:
    # Jitted by itself so that one trace of the user's function serves gradient and value alike.
    measure = partial(flow_open_and_closed, apply_fn=apply_fn, inputs=inputs)
    extra = (closing, scales)
    return scaled(measure, sizes and (*sizes, *[0.0] * len(jax.tree.leaves(extra))))(params, *extra)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["held"],
    meta_fields=["inputs", "power", "sizes", "opens", "signed"],
)
@dataclass(frozen=True)
class FlowSaliency(Saliency):
    """The flow through each weight, and the flow of the network beside it.

    A weight enters as w = |θ|^p with p = 1 or 2, and scores S = w ⊙ ∂R/∂(m ⊙ w), R being the
    network at w on ones. No sum over paths overflows or underflows: flow and scores are computed
    as numbers times one power of two, 2^exponent, that all scores share.
    """

    held: Function  # holds a Network
    inputs: Inputs
    power: int = 1
    sizes: tuple[float, ...] = ()  # of the leaves, in powers of two, where some are extreme
    opens: bool | None = None  # whether the network opens leaves; None where it is not known
    signed: tuple[bool, ...] | None = None  # the leaves that keep their sign; None before `fitted`

    measures_flow: ClassVar[bool] = True
    scores_pruned: ClassVar[bool] = True

    @property
    def network(self) -> Network:
        """The network that is scored."""
        return self.held.fn  # pyright: ignore[reportReturnType]

    @property
    def homogeneous(self) -> bool:
        """Whether the network is in flow mode."""
        return self.network.homogeneous

    def fitted(self, params: Params, prunable: tuple[bool, ...] = ()) -> "FlowSaliency":
        """Use all rows of prunable tables alike, and allow for weights of extreme size."""
        if any(prunable):
            plain = as_function(self.network.plain, "apply_fn")
            even = even_rows(plain, self.reading(params), prunable)
            if even is not None:
                held = as_function(self.network.over(even), "apply_fn")
                return replace(self, held=held).fitted(params)
        closing = self._closing(params)
        opens = None if is_traced(closing) else closing is not None
        flags = self.network.signed(params, self.inputs)
        chosen = prunable or (False,) * len(flags)
        signed = tuple(flag and not hit for flag, hit in zip(flags, chosen, strict=True))
        sizes = self._assumed_sizes(params)
        return replace(self, opens=opens, signed=signed, sizes=sizes)

    def _assumed_sizes(self, params: Params) -> tuple[float, ...]:
        """Return powers of two that are assumed of the leaves; () where all are of usual size."""
        leaves = jax.tree.leaves(params)
        found = max_abs([leaf for leaf in leaves if is_weight(leaf)])
        if is_traced(found):
            return self.sizes
        tops = [float(top) ** self.power for top in found]
        if all(not top or 1 / EXTREME < top < EXTREME for top in tops):
            return self.sizes
        return tuple(EXTREME_BITS if is_weight(leaf) else 0.0 for leaf in leaves)

    def reading(self, params: Params) -> Reading:
        """Read the user's own network."""
        return read_network(self.network.plain, params, self.inputs)

    def least_claim(
        self, params: Params, masks: Masks, flow: jax.Array, of_layers: jax.Array
    ) -> jax.Array:
        """Return the smallest flow that must not be lost: of an output, a layer or an input.

        Layers and inputs count where branches have shares, and if they have flow to lose. All that
        is looked up beside floating inputs counts as one input more, with the same share as each.
        Where the network opens branches, each output has half of its share in the network as
        initialised.
        """
        share = self.network.least_share(len(output_shapes(self, params)))
        changed = [jnp.any(factor != 1) for factor in self._closing(params) or ()]
        networks = 1 + jnp.any(jnp.array(changed, bool)).astype(of_layers.dtype)
        claims = [flow * share / networks]
        if self.network.keeps_layers:
            floating = self._input_flows(params, masks)
            looked_up = [flow / (1 + len(floating))] if self._looks_up(params) else []
            own = [of_layers, *floating, *looked_up]
            claims += [jnp.where(one > 0, one, jnp.inf).min() for one in own]
        return jnp.min(jnp.stack([jnp.asarray(claim, of_layers.dtype) for claim in claims]))

    def _looks_up(self, params: Params) -> bool:
        """Whether the network looks up tables by whole numbers of its input."""
        kinds = [dtype for _, dtype in self.inputs.specs if dtype is not None]
        discrete = not all(jnp.issubdtype(dtype, jnp.inexact) for dtype in kinds)
        return discrete and any(use.role == "table" for use in self.reading(params).uses)

    @highest_precision
    def _input_flows(self, params: Params, masks: Masks) -> list[jax.Array]:
        """Return the flow from each floating input, none where there is one input alone."""
        floating = [dtype is None for _, dtype in self.inputs.specs]
        if sum(floating) + self._looks_up(params) < 2:
            return []
        start = self.entering_weights(params, masks)
        rest = (self._closing(params), self.held, self.inputs, self.sizes)

        def grown(scales: list[jax.Array]) -> Scaled:
            return _flow(start, *rest, tuple(scales))

        ones = [jnp.ones(()) for _ in floating]
        _, slopes = jax.value_and_grad(grown, has_aux=True)(ones)
        return [slope for slope, hit in zip(slopes, floating, strict=True) if hit]

    def scores(self, params: Params, masks: Masks) -> Scores:
        """Score every weight; pruned weights score 0.

        Where R is beyond about 2^±100 (2^±996 in float64), scores are in units of a power of two
        near R, else they are S itself.
        """
        flow, scores = self.flow_and_scores(params, masks)
        exponent = unit_exponent(flow)
        return jax.tree.map(lambda score: unscale(score, exponent), scores)

    @highest_precision
    def flow(self, params: Params, masks: Masks) -> Scaled:
        """Return R of the masked network."""
        start, rest = self.entering_weights(params, masks), (self.held, self.inputs, self.sizes)
        return _flow(start, self._closing(params), *rest)

    @highest_precision
    def flow_and_scores(self, params: Params, masks: Masks) -> tuple[Scaled, Scores]:
        """Return R and, from the same gradient, the scores in units of 2^exponent."""
        # With |m ⊙ θ| as the factor, a pruned weight scores 0 whatever the slope of |·| at 0 is.
        start = self.entering_weights(params, masks)
        rest = (self._closing(params), self.held, self.inputs, self.sizes)
        return value_and_scores(lambda p: _flow(p, *rest), start, start)

    def _closing(self, params: Params) -> tuple[Any, ...] | None:
        """Return the factors that close again what the network opens; None where it does not."""
        if self.opens is False:
            return None
        found = self.network.closing(params, self.inputs)
        return None if found is None else tuple(factor**self.power for factor in found)

    def entering_weights(self, params: Params, masks: Masks) -> Params:
        """Return |m ⊙ θ|, or its square; leaves that the network takes with their sign keep it."""
        start = self.masked_weights(params, masks)
        signed = self.signed
        if signed is None:
            signed = self.network.signed(params, self.inputs)
        return squared(start, signed) if self.power == 2 else absolute(start, signed)

    def masked_weights(self, params: Params, masks: Masks) -> Params:
        """Return m ⊙ θ of the prepared params."""
        # Masked first, then widened: what XLA finds the same in every round it holds in memory.
        return widen(masked(self.network.prepare(params, self.inputs), masks))

    def losses(self, pruned: Pruned) -> tuple[str, ...]:
        """Describe what pruning cut: outputs, inputs, signals and gradients, one phrase each."""
        return find_losses(self, pruned)

    def from_input_alone(self, params: Params, prunable: tuple[bool, ...]) -> Params:
        """Set what is added to a signal to 0, so that all flow starts at the input.

        Tables beside floating inputs are sources as well, unless inputs have shares of their own;
        where all inputs are whole numbers, the tables that they look up act as the input and stay.
        Prunable leaves stay.
        """
        stays = self.inputs.discrete or self.network.keeps_layers
        looked_up = () if stays else ("table",)
        uses = self.reading(params).uses
        sources = tuple(
            (use.roles == {"added"} or use.role in looked_up) and not hit
            for use, hit in zip(uses, prunable, strict=True)
        )
        zeros = [jnp.zeros_like(leaf) for leaf in pick(params, sources)]
        return place(params, sources, zeros, lambda leaf: leaf)

    def candidate_scores(self, params: Params, kept: Leaves, prunable: tuple[bool, ...]) -> Leaves:
        """Score every prunable weight by the flow through it if it were added to those kept."""
        return _candidate_scores(params, self, kept, prunable)


@partial(jax.tree_util.register_dataclass, data_fields=["held"], meta_fields=[])
@dataclass(frozen=True)
class _Gated(Network):
    """The masked network with a gate of 1 for each weight, whose score is the weight's own.

    A weight of 0 has no slope under |·|, but its gate has: the network is run at θ ⊙ (g − 1 + m),
    which is m ⊙ θ, and g ⊙ ∂R/∂g = |θ| ⊙ ∂R/∂|m ⊙ θ|, pruned weights included.
    """

    held: Function

    @property
    def plain(self) -> ApplyFn:
        """The network without gates."""
        network: Any = self.held.fn
        return network.plain

    def prepare(self, params: Any, inputs: Inputs | None = None) -> Any:
        """Prepare the params as the network does."""
        params, masks, gates = params
        network: Any = self.held.fn
        return network.prepare(params, inputs), masks, gates

    def signed(self, params: Any, inputs: Inputs) -> tuple[bool, ...]:
        """Flag what the network takes with its sign."""
        params, *others = params
        network: Any = self.held.fn
        return (*network.signed(params, inputs), *[False] * len(jax.tree.leaves(others)))

    def closing(self, params: Any, inputs: Inputs) -> tuple[Any, ...] | None:
        """Close the params as the network does; masks and gates stay."""
        params, *others = params
        network: Any = self.held.fn
        found = network.closing(params, inputs)
        if found is None:
            return None
        return (*found, *[jnp.ones(()) for _ in jax.tree.leaves(others)])

    def __call__(self, params: Any, x: Any) -> Any:
        """Run the network at m ⊙ θ."""
        params, masks, gates = params
        leaves, treedef = jax.tree.flatten(params)
        shut = [
            leaf if gate is None else leaf * (gate - (~mask).astype(gate.dtype))
            for leaf, mask, gate in zip(leaves, masks, gates, strict=True)
        ]
        return self.held(treedef.unflatten(shut), x)


@partial(jax.jit, static_argnames=("prunable",))
def _candidate_scores(
    params: Params, saliency: FlowSaliency, kept: Leaves, prunable: tuple[bool, ...]
) -> Leaves:
    """Score |θ| ⊙ ∂R/∂|m ⊙ θ|, pruned weights included."""
    wide = widen(params)
    masks = iter(kept)
    pairs = zip(jax.tree.leaves(wide), prunable, strict=True)
    gates = [jnp.ones_like(leaf) if hit else None for leaf, hit in pairs]
    given = [next(masks) if hit else None for hit in prunable]
    gated = (wide, given, gates)
    sizes = saliency.sizes and (*saliency.sizes, *[0.0] * (2 * len(kept)))
    held = as_function(_Gated(saliency.held), "gated")
    gate = replace(saliency, held=held, sizes=sizes, signed=None)
    scores = gate.scores(gated, jax.tree.map(all_true, gated))
    found = jax.tree.leaves(scores[2])
    return [score.astype(floating_dtype(found)) for score in found]


def flow_saliency(apply_fn: Callable[..., Any], shape: Any, power: int = 1) -> FlowSaliency:
    """Build the flow saliency of a network, for weights that enter as |θ|^power."""
    held = as_function(as_network(apply_fn), "apply_fn")
    return FlowSaliency(held, read_shape(shape), power)


def synflow_saliency(
    apply_fn: ApplyFn, shape: Any, *, outputs: Outputs | None = None
) -> FlowSaliency:
    """Score each weight by the flow through it, S = |θ| ⊙ ∂R_SF/∂|θ|, without data.

    Args:
      apply_fn: apply_fn(params, x) -> y, in evaluation mode.
      shape: one example without the batch axis, (32, 32, 3), or a pytree of
        jax.ShapeDtypeStruct, likewise without it.
      outputs: y -> the outputs that count, or their weights by path, as `flow.choose_outputs` takes
        them; None for all.

    Returns:
      saliency(params, masks) -> scores, all non-negative for a network that has a flow.

    Raises:
      TypeError: shape is not a shape, or apply_fn is not a function.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"w": jnp.array([[1.0, -2.0]]), "v": jnp.array([[3.0], [0.5]])}
      >>> score = synflow_saliency(lambda p, x: x @ p["w"] @ p["v"], (1,))
      >>> score(weights, {"w": jnp.ones((1, 2), bool), "v": jnp.ones((2, 1), bool)})["w"].tolist()
      [[3.0, 1.0]]

    Source: Tanaka et al. 2020, section 6, equations 4 and 5.
    """
    return flow_saliency(choose_outputs(apply_fn, outputs), shape)


def synflow_l2_saliency(
    apply_fn: ApplyFn, shape: Any, *, outputs: Outputs | None = None
) -> FlowSaliency:
    """Score each weight by the flow of squared weights through it, S = θ² ⊙ ∂R/∂θ², without data.

    R = 1ᵀ ∏ₗ (θˡ)² 1 is the network at θ² on ones. The derivative is by the square, so that the
    scores of a layer sum to R, as those of SynFlow do. Every floating leaf enters as its square,
    biases and statistics included, as |·| is taken of every one in SynFlow.

    Args:
      apply_fn: apply_fn(params, x) -> y, in evaluation mode.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.
      outputs: y -> the outputs that count, or their weights by path, as `flow.choose_outputs` takes
        them; None for all.

    Returns:
      saliency(params, masks) -> scores, all non-negative for a network that has a flow.

    Raises:
      TypeError: shape is not a shape, or apply_fn is not a function.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"w": jnp.array([[1.0, -2.0]]), "v": jnp.array([[3.0], [0.5]])}
      >>> score = synflow_l2_saliency(lambda p, x: x @ p["w"] @ p["v"], (1,))
      >>> score(weights, {"w": jnp.ones((1, 2), bool), "v": jnp.ones((2, 1), bool)})["w"].tolist()
      [[9.0, 1.0]]

    Source: Gebhart, Saxena and Schrater 2021 (arXiv 2102.11068); Patil and Dovrolis 2021 (arXiv
    2010.11354).
    """
    return flow_saliency(choose_outputs(apply_fn, outputs), shape, power=2)
