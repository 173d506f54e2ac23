"""The warning of a network for which the laws of flow do not hold."""

from collections.abc import Iterable

from synflow_jax.flow import FlowWarning
from synflow_jax.structure import Break, Reading, describe
from synflow_jax.trees import warn


def warn_of_breaks(reading: Reading, paths: Iterable[str]) -> None:
    """Warn, once for all of them, of what makes the flow no line in the size of a pruned layer."""
    found = reading.breaks_of(paths)
    said = [
        text(breaks)
        for text, breaks in (
            (_of_signals, [one for one in found if not one.of_weights and not _mixes(one)]),
            (_of_weights, [one for one in found if one.of_weights]),
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


def _of_signals(breaks: list[Break]) -> str:
    return (
        "apply_fn must be homogeneous for scores to be shares of the flow, and this one is not, so "
        f"its masks may mean nothing: {describe(breaks)}."
    )


def _of_weights(breaks: list[Break]) -> str:
    layers = sorted(frozenset().union(*(one.paths for one in breaks)))
    centred = any(one.breaks == "centring" for one in breaks)
    effect = " A mean is subtracted, which makes pruned weights nonzero again." if centred else ""
    return (
        f"apply_fn normalises weights before it uses them ({', '.join(layers[:4])}"
        f"{', …' if len(layers) > 4 else ''}), so that the flow does not grow with them: "
        f"{describe(breaks)}.{effect}"
    )


def _of_transforms(breaks: list[Break]) -> str:
    return (
        "apply_fn takes a Fourier transform, of which an input of ones reaches the zero frequency "
        f"alone: {describe(breaks)}."
    )
