"""What the backward pass of residual blocks recomputes, and what it shares. The results do not depend on it."""

from flax import linen as nn
import jax
from jax import lax
from jax.ad_checkpoint import checkpoint_name

POLICIES = ("none", "block", "preactivations")


def apply(block: type[nn.Module], policy: str) -> type[nn.Module]:
  """Applies a remat policy to a block module, called as block(x, train, ...). The results do not change.

  The gradient is that of x and the parameters alone; arguments after x must not depend on what is differentiated.

  With any policy, blocks share no work in the backward pass on CPU; this requires `models.compiler_options`.

  Args:
    block: a linen module class.
    policy: "none" keeps everything that the gradient needs. "block" keeps x and recomputes the whole block, a third
      more work. "preactivations" keeps x and what `saved` marks, and recomputes activations, norms and shifts, but no
      matrix products except those of activations, as in attention.

  Raises:
    ValueError: unknown policy.
  """
  if policy not in POLICIES:
    raise ValueError(f"unknown remat {policy!r}; one of {', '.join(POLICIES)}")
  if policy != "none":
    block = _recomputed(block, policy)

  class Block(block):
    """`block` with a stored gradient of x."""

    def __call__(self, x, *arguments):
      return super().__call__(stored_gradient(x), *arguments)

  return Block


def _recomputed(block, policy):
  keep = jax.checkpoint_policies.save_only_these_names("saved") if policy == "preactivations" else None

  class Block(block):
    """`block` with a backward pass that starts from what the policy keeps."""

    def __call__(self, x, *arguments):
      def plain(module, x):
        return block.__call__(module, x, *arguments)

      if self.is_initializing():  # flax's lazy_init does not see parameters behind a custom gradient
        return plain(self, x)

      def forward(module, x):
        return nn.vjp(nn.remat(plain, prevent_cse=False, policy=keep), module, x)

      def backward(pull_back, g):
        # The barrier prevents XLA from merging the recomputation with the forward pass. nn.remat's own barrier would
        # also hold back g, so XLA could not sum up a norm's gradient in the matrix product that computes g.
        return lax.optimization_barrier(pull_back)(g)

      return nn.custom_vjp(plain, forward_fn=forward, backward_fn=backward)(self, x)

  return Block


def saved(x: jax.Array) -> jax.Array:
  """x; remat "preactivations" keeps it for the backward pass. For results of matrix products and norms' statistics."""
  return checkpoint_name(x, "saved")


@jax.custom_vjp
def stored_gradient(x: jax.Array) -> jax.Array:
  """x; on CPU, its gradient is stored.

  The gradient of a residual stream is a sum with one term per later block. XLA on CPU considers it cheap and would
  recompute the whole sum in each block's kernels: the time of the backward pass would grow with the square of the
  depth. A barrier prevents this. XLA drops the barrier unless the program is compiled with `models.compiler_options`.
  """
  return x


@jax.jit
def _stored(_, g):
  return (lax.platform_dependent(g, cpu=lax.optimization_barrier, default=lambda g: g),)


stored_gradient.defvjp(lambda x: (x, None), _stored)
