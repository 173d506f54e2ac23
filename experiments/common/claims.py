"""What the paper says of a panel, checked on rows: who leads, and who loses a layer where."""

from collections.abc import Iterator, Sequence

from experiments.common.curves import Panel, by_compression, collapsed, mean
from experiments.common.rows import Row
from experiments.common.sweep import DENSE

Claim = tuple[str, bool]  # what should be seen, and whether it is
NEAR = 0.01  # accuracies that differ by less than a point are called alike


def points(rows: Sequence[Row]) -> list[float]:
    """List the log10 ρ of rows, rising, without the dense network's."""
    return sorted({row["log10_rho"] for row in rows if row["method"] != DENSE})


def critical(rows: Sequence[Row], method: str) -> float | None:
    """Find log10 ρ_cr: the last ρ of the grid before any seed lost a layer.

    Args:
      rows: of one network.
      method: whose.

    Returns:
      log10 ρ_cr; 0 where the first ρ already costs a layer, None where there are no rows.
    """
    found = None
    for x, seeds in by_compression(rows, method).items():
        if collapsed(seeds):
            return found
        found = x
    return found if any(row["method"] == method for row in rows) else None


def leads(panel: Panel, methods: Sequence[str]) -> Iterator[Claim]:
    """SynFlow has the best mean of the paper's methods at the largest compressions."""
    present = {row["method"] for row in panel.rows}
    names = [name for name in methods if name in present]
    if "synflow" not in names or len(names) < 2:
        return
    for x in [x for x in points(panel.rows) if x >= 2] or points(panel.rows)[-1:]:
        means = {name: mean(by_compression(panel.rows, name)[x]) for name in names}
        others = {name: value for name, value in means.items() if name != "synflow"}
        second = max(others, key=others.__getitem__)
        text = f"SynFlow leads at ρ = 10^{x:g}: {100 * means['synflow']:.1f}"
        best = f"best of the others {100 * others[second]:.1f} ({second})"
        yield f"{panel.title}: {text}, {best}", means["synflow"] > others[second]


def crashes(panel: Panel, methods: Sequence[str]) -> Iterator[Claim]:
    """SynFlow loses no layer before any other method does."""
    present = {row["method"] for row in panel.rows}
    found = {name: critical(panel.rows, name) or 0.0 for name in methods if name in present}
    if "synflow" not in found:
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
    alike = 0.0
    for x in points(panel.rows):
        whole, mixed = (mean(by_compression(panel.rows, name)[x]) for name in pair)
        if whole - mixed > NEAR:
            break
        alike = x
    good = alike == points(panel.rows)[-1]
    yield f"{panel.title}: shuffling inside layers costs < 1 point, up to 10^{alike:g}", good


def follows(panel: Panel) -> Iterator[Claim]:
    """Our mean lies in the range of the paper's runs, give or take a point."""
    for method, curve in panel.paper.items():
        groups = by_compression(panel.rows, method)
        pairs = zip(curve.log10_rho, curve.low, curve.high, strict=True)
        off = {
            x: max(low - 100 * mean(groups[x]), 100 * mean(groups[x]) - high)
            for x, low, high in pairs
            if x in groups and any(row["method"] == method for row in groups[x])
        }
        if off:
            worst = max(off, key=off.__getitem__)
            text = f"{method} is within 1 point of the paper's runs"
            far = f"furthest at 10^{worst:g}, {max(off[worst], 0):.1f} points outside"
            yield f"{panel.title}: {text}; {far}", off[worst] <= 100 * NEAR
