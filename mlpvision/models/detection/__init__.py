"""Two-stage detectors: `two_stage` puts together `rpn`, `box_head` and `mask_head`.

The other files have pure functions with static shapes, of one image each, for `jax.vmap` over a batch.

Boxes are float32 (x1, y1, x2, y2) in pixels of the padded image, continuous: a width is x2 - x1. Sizes are (height,
width). Where the number of boxes varies, arrays are padded and a mask or a negative label says which slots count.
"""
