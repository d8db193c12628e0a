"""MLP vision models in JAX/Flax: train, evaluate and take them apart, from a laptop to a TPU pod."""
