"""Every test runs on eight virtual CPU devices, with strict dtypes and strict ranks."""

import os

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """Run files side by side: compiling a program keeps one core busy."""
    return min(os.cpu_count() or 1, 4)


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Give back the memory of what a file compiled: no other file runs it."""
    yield
    jax.clear_caches()


@pytest.fixture
def x64():
    """Run a test in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def compiled_fast():
    """Compile with few optimisations: small networks run fast however they are compiled."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def flax_promotes():
    """Flax mixes dtypes and ranks: let it."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
