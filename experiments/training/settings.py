"""The paper's settings: what its networks were trained under.

Tanaka et al. 2020, appendix; where that and the arguments stored with the authors' results differ,
the stored arguments. All train in batches of 128 by Nesterov momentum of 0.9 and cut no gradient.
"""

from experiments.training.optimiser import Budget

BATCH = 128

CIFAR_VGG = Budget(160, BATCH, 0.1, 1e-4, None, drops=(60, 120), factor=0.1)
CIFAR_RESNET = Budget(160, BATCH, 0.01, 5e-4, None, drops=(60, 120), factor=0.2)
TINY_IMAGENET = Budget(100, BATCH, 0.01, 1e-4, None, drops=(30, 60, 80), factor=0.2)
# VGG-11 on CIFAR-10: every level of iterative magnitude pruning. The rate does not fall.
ITERATIVE = Budget(50, BATCH, 0.01, 1e-4, None, drops=())
# VGG-19 on CIFAR-10, its layers watched while it trains. Epochs and rate are the paper's; the rest,
# which it does not say, is that of iterative magnitude pruning.
WATCHED = Budget(100, BATCH, 0.001, 1e-4, None, drops=())

# The networks that the paper trained, and what stands in for them at 64×64 ("X-tiny").
CIFAR = {"vgg11": CIFAR_VGG, "vgg16": CIFAR_VGG, "resnet18": CIFAR_RESNET}
TRAINED: dict[str, dict[str, Budget]] = {
    "cifar10": CIFAR,
    "cifar100": CIFAR,
    "tiny_imagenet": {f"{model}-tiny": TINY_IMAGENET for model in CIFAR},
}


def settings(model: str, dataset: str) -> Budget:
    """Look up what the paper trains a network under (its Figures 1 and 6).

    Args:
      model: a name of `MODELS`.
      dataset: a name of `data.DatasetName`.

    Returns:
      The budget, in float32.

    Raises:
      ValueError: the paper does not train this network, or nothing on this data set.

    Example:
      >>> settings("resnet18", "cifar10").factor
      0.2
    """
    if dataset not in TRAINED:
        raise ValueError(f"dataset must be one of {tuple(TRAINED)}, got {dataset!r}")
    if model not in TRAINED[dataset]:
        allowed = tuple(TRAINED[dataset])
        raise ValueError(f"model must be one of {allowed} on {dataset}, got {model!r}")
    return TRAINED[dataset][model]
