"""The warning of a network for which the laws of flow do not hold."""

from collections.abc import Iterable

from synflow_jax.flow import FlowWarning
from synflow_jax.structure import Break, Reading, describe
from synflow_jax.trees import warn


def warn_of_breaks(reading: Reading, paths: Iterable[str]) -> None:
    """Warn once of all operations because of which the flow does not scale with a pruned layer."""
    found = reading.breaks_of(paths)
    weights = [one for one in found if one.of_weights and not _mixes(one)]
    signals = [one for one in found if not (one.of_weights or _mixes(one))]
    known = any(one.breaks != "unknown" for one in signals)
    # The square and the root of a normalisation are breaks as well: they are named with it.
    normalised = frozenset().union(*(one.paths for one in weights if _normalises(one)))
    said = [
        text(breaks)
        for text, breaks in (
            (_of_signals if known else _of_unknown, signals),
            (_of_normalised, [one for one in weights if one.paths & normalised]),
            (_of_functions, [one for one in weights if not one.paths & normalised]),
            (_of_transforms, [one for one in found if _mixes(one)]),
        )
        if breaks
    ]
    if said:
        warn(
            f"{' '.join(said)} Pass flow_mode(apply_fn) in the place of apply_fn: "
            "homogeneity_report says what it replaces",
            FlowWarning,
        )


def _mixes(one: Break) -> bool:
    return one.breaks == "transform"


def _normalises(one: Break) -> bool:
    return one.breaks in ("normaliser", "centring")


def _of_signals(breaks: list[Break]) -> str:
    return (
        "apply_fn must be homogeneous for scores to be shares of the flow, and this one is not, so "
        f"its masks may mean nothing: {describe(breaks)}."
    )


def _of_unknown(breaks: list[Break]) -> str:
    return (
        "apply_fn must be homogeneous for scores to be shares of the flow, and it is not known "
        f"whether these operations are: {describe(breaks)}."
    )


def _of_normalised(breaks: list[Break]) -> str:
    centred = any(one.breaks == "centring" for one in breaks)
    effect = " Their mean or maximum is subtracted, so that pruned weights are not 0 there."
    effect = effect if centred else ""
    return (
        f"apply_fn normalises weights before it uses them ({_leaves(breaks)}), so that the flow "
        f"does not grow with them: {describe(breaks)}.{effect}"
    )


def _of_functions(breaks: list[Break]) -> str:
    return (
        f"apply_fn uses a function of the weights in their place ({_leaves(breaks)}), so that "
        f"their scores are not shares of the flow: {describe(breaks)}."
    )


def _leaves(breaks: list[Break]) -> str:
    layers = sorted(frozenset().union(*(one.paths for one in breaks)))
    return f"{', '.join(layers[:4])}{', …' if len(layers) > 4 else ''}"


def _of_transforms(breaks: list[Break]) -> str:
    return (
        "apply_fn takes a Fourier transform, of which an input of ones reaches the zero frequency "
        f"alone: {describe(breaks)}."
    )
