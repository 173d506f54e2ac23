"""The wings that have public names."""

PUBLIC_WINGS = (
    "compaction",
    "files",
    "flow",
    "measure",
    "plan",
    "pruning",
    "saliency",
    "show",
    "structure",
    "training",
)
