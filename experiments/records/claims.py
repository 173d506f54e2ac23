"""What the paper says of a panel, checked on rows: who leads, and who loses a layer where.

Rows may be some of a run's only: methods are compared where all of them have some.
"""

from collections.abc import Iterator, Sequence

from experiments.records import groups
from experiments.records.groups import by_compression, mean, points
from experiments.records.published import Panel
from experiments.records.rows import Row

Claim = tuple[str, bool]  # what should be seen, and whether it is
NEAR = 0.01  # accuracies that differ by less than a point are called alike
CHANCE = 0.03  # above 1/classes by this is more than chance
CLASSES = {"cifar100": 100, "tiny_imagenet": 200, "imagenet2012": 1000}  # the others have 10


def above_chance(rows: Sequence[Row]) -> float:
    """Say from what accuracy on a network of these rows is called trained."""
    return 1 / CLASSES.get(rows[0]["dataset"], 10) + CHANCE


def means_of(rows: Sequence[Row], methods: Sequence[str]) -> dict[float, dict[str, float]]:
    """Average the seeds of methods at every log10 ρ, rising, where each of them has rows."""
    found = {name: by_compression(rows, name) for name in methods}
    shared = [x for x in points(rows) if all(x in seeds for seeds in found.values())]
    return {x: {name: mean(seeds[x]) for name, seeds in found.items()} for x in shared}


def critical(rows: Sequence[Row], method: str) -> float | None:
    """Find log10 ρ_cr: the last ρ of the grid before any seed has an empty layer.

    Args:
      rows: the rows of one network.
      method: the method to look at.

    Returns:
      log10 ρ_cr; 0 where the first ρ already empties a layer, None where there are no rows.
    """
    if not any(row["method"] == method for row in rows):
        return None
    return groups.critical(rows, method) or 0.0


def leads(panel: Panel, methods: Sequence[str]) -> Iterator[Claim]:
    """SynFlow has the best mean of the paper's methods at the largest compressions.

    Of those, only ones where some method is above chance.
    """
    present = {row["method"] for row in panel.rows}
    names = [name for name in methods if name in present]
    if "synflow" not in names or len(names) < 2:
        return
    found = means_of(panel.rows, names)
    for x in [x for x in found if x >= 2] or [*found][-1:]:
        means = found[x]
        if max(means.values()) <= above_chance(panel.rows):
            continue  # nobody is trained: what is left is noise
        others = {name: value for name, value in means.items() if name != "synflow"}
        second = max(others, key=others.__getitem__)
        text = f"SynFlow leads at ρ = 10^{x:g}: {100 * means['synflow']:.1f}"
        best = f"best of the others {100 * others[second]:.1f} ({second})"
        yield f"{panel.title}: {text}, {best}", means["synflow"] > others[second]


def crashes(panel: Panel, methods: Sequence[str]) -> Iterator[Claim]:
    """SynFlow loses no layer before any other method does."""
    present = {row["method"] for row in panel.rows}
    found = {name: critical(panel.rows, name) or 0.0 for name in methods if name in present}
    if "synflow" not in found or len(found) < 2:
        return
    last = max(points(panel.rows))
    shown = [f"{name} {'≥ ' if x == last else ''}{x:g}" for name, x in found.items()]
    good = all(found["synflow"] >= x for x in found.values())
    yield f"{panel.title}: no method keeps all layers longer; log10 ρ_cr: {', '.join(shown)}", good


def worth(panel: Panel, _: Sequence[str]) -> Iterator[Claim]:
    """Frankle et al. 2021: SynFlow's masks, shuffled inside layers, do as well."""
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
    """Our mean lies in the range of the paper's runs, give or take a point."""
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
