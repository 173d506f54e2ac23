"""Shared looks of the pictures: a colour, line and marker for each method, and marks."""

from typing import Any

STYLES = {
    "synflow": ("#0072B2", "-", "o"),
    "snip": ("#D55E00", "-", "s"),
    "grasp": ("#CC79A7", "-", "D"),
    "magnitude": ("#E69F00", "-", "^"),
    "random": ("#666666", "-", "v"),
    "synflow-shuffled": ("#56B4E9", "--", "o"),
    "random-erk": ("#009E73", "--", "P"),
    "synflow-certified": ("#004C7F", ":", "*"),
}
LOOK: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
CROSS: Any = {"ls": "", "marker": "x", "color": "black", "ms": 8, "mew": 1.2}
RING: Any = {"ls": "", "marker": "o", "mfc": "none", "mec": "black", "ms": 11, "mew": 1.2}
