"""Titles of networks and short numbers, for tables and figures."""

TITLES = {
    "fc": "fc",
    "vgg16": "VGG-16",
    "resnet18": "ResNet-18",
    "resnet20": "ResNet-20",
    "resnet110": "ResNet-110",
    "resnet50": "ResNet-50",
    "vit_b16": "ViT-B/16",
    "mlp_1e9": "MLP, 10⁹",
}


def number(value: float | None, unit: float = 1.0) -> str:
    """Write a number with three digits and no powers of ten, and None as an empty string."""
    if value is None:
        return ""
    value *= unit
    return f"{value:.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")
