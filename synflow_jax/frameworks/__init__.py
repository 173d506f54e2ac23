"""Adapters from a model of a framework to (params, apply_fn) and back: one module a framework.

`linen` and `nnx` are the only modules that import Flax. They are imported on first use, as
`synflow_jax.linen` and `synflow_jax.nnx`. To support another framework, add one module.
"""
