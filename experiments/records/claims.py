"""Claims of the paper about one network, checked on its rows.

Rows of an unfinished run are enough: methods are compared at each ρ where all of them have rows.
"""

from collections.abc import Iterator, Sequence

from experiments.records import groups
from experiments.records.groups import by_compression, mean, points
from experiments.records.published import Panel
from experiments.records.rows import Row

Claim = tuple[str, bool]  # the claim in words, and whether it holds
NEAR = 0.01  # accuracies within one point count as equal
CHANCE = 0.03  # an accuracy this far above 1/classes is better than chance
CLASSES = {"cifar100": 100, "tiny_imagenet": 200, "imagenet2012": 1000}  # the others have 10


def above_chance(rows: Sequence[Row]) -> float:
    """Return the accuracy above which a network of these rows counts as trained."""
    return 1 / CLASSES.get(rows[0]["dataset"], 10) + CHANCE


def means_of(rows: Sequence[Row], methods: Sequence[str]) -> dict[float, dict[str, float]]:
    """Average over seeds, by log10 ρ (ascending) and method, where all methods have rows."""
    found = {name: by_compression(rows, name) for name in methods}
    shared = [x for x in points(rows) if all(x in seeds for seeds in found.values())]
    return {x: {name: mean(seeds[x]) for name, seeds in found.items()} for x in shared}


def critical(rows: Sequence[Row], method: str) -> float | None:
    """Find log10 ρ_cr: the last ρ of the grid before any seed has an empty layer.

    Args:
      rows: the rows of one network.
      method: the method to look at.

    Returns:
      log10 ρ_cr; unlike in `groups.critical`, 0 where the first ρ already empties a layer, and None
      only where there are no rows.
    """
    if not any(row["method"] == method for row in rows):
        return None
    return groups.critical(rows, method) or 0.0


def leads(panel: Panel, methods: Sequence[str]) -> Iterator[Claim]:
    """Check that SynFlow has the best mean of the paper's methods at each ρ of 100 or more.

    If no ρ is that large, the largest is checked. A ρ with every method at chance is skipped.
    """
    present = {row["method"] for row in panel.rows}
    names = [name for name in methods if name in present]
    if "synflow" not in names or len(names) < 2:
        return
    found = means_of(panel.rows, names)
    for x in [x for x in found if x >= 2] or [*found][-1:]:
        means = found[x]
        if max(means.values()) <= above_chance(panel.rows):
            continue  # no method is trained: differences are noise
        others = {name: value for name, value in means.items() if name != "synflow"}
        second = max(others, key=others.__getitem__)
        text = f"SynFlow leads at ρ = 10^{x:g}: {100 * means['synflow']:.1f}"
        best = f"best of the others {100 * others[second]:.1f} ({second})"
        yield f"{panel.title}: {text}, {best}", means["synflow"] > others[second]


def crashes(panel: Panel, methods: Sequence[str]) -> Iterator[Claim]:
    """Check that no method keeps all layers up to a larger ρ than SynFlow."""
    present = {row["method"] for row in panel.rows}
    found = {name: critical(panel.rows, name) or 0.0 for name in methods if name in present}
    if "synflow" not in found or len(found) < 2:
        return
    last = max(points(panel.rows))
    shown = [f"{name} {'≥ ' if x == last else ''}{x:g}" for name, x in found.items()]
    good = all(found["synflow"] >= x for x in found.values())
    yield f"{panel.title}: no method keeps all layers longer; log10 ρ_cr: {', '.join(shown)}", good


def worth(panel: Panel, _: Sequence[str]) -> Iterator[Claim]:
    """Check that shuffling SynFlow's masks inside layers costs less than a point.

    Frankle et al. 2021 found that it does.
    """
    pair = "synflow", "synflow-shuffled"
    if not {row["method"] for row in panel.rows}.issuperset(pair):
        return
    found, alike = means_of(panel.rows, pair), 0.0
    if not found:
        return
    for x, means in found.items():
        if means["synflow"] - means["synflow-shuffled"] > NEAR:
            break
        alike = x
    good = alike == max(found)
    yield f"{panel.title}: shuffling inside layers costs < 1 point, up to 10^{alike:g}", good


def follows(panel: Panel) -> Iterator[Claim]:
    """Check that our means lie within one point of the range of the paper's runs."""
    for method, curve in panel.paper.items():
        ours = by_compression(panel.rows, method)
        pairs = zip(curve.log10_rho, curve.low, curve.high, strict=True)
        off = {
            x: max(low - 100 * mean(ours[x]), 100 * mean(ours[x]) - high)
            for x, low, high in pairs
            if x in ours and any(row["method"] == method for row in ours[x])
        }
        if off:
            worst = max(off, key=off.__getitem__)
            text = f"{method} is within 1 point of the paper's runs"
            far = f"furthest at 10^{worst:g}, {max(off[worst], 0):.1f} points outside"
            yield f"{panel.title}: {text}; {far}", off[worst] <= 100 * NEAR
