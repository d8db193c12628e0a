"""What the backward pass finds in memory, and what it computes again."""

from flax import linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name

_SAVED = "saved"
POLICIES = ("none", "block", "preactivations")


def saved(x: jax.Array) -> jax.Array:
  """Marks x, of any shape: "preactivations" keeps it. For results of matrix products and for a norm's statistics."""
  return checkpoint_name(x, _SAVED)


@jax.custom_vjp
def _own_gradient(x):
  """x; on CPU its gradient is stored, however cheap it looks.

  The gradient of a residual stream is a sum with a term from every block behind. XLA on CPU takes that for cheap: each
  block's kernels would compute the whole sum once more, so the backward pass would grow with the square of the depth.
  """
  return x


def _stored(_, g):
  return (jax.lax.platform_dependent(g, cpu=jax.lax.optimization_barrier, default=lambda g: g),)


_own_gradient.defvjp(lambda x: (x, None), _stored)


def wrap(block: type[nn.Module], policy: str) -> type[nn.Module]:
  """A block module, called as block(x, train), whose backward pass follows the policy; the numbers are the same.

  Whatever the policy, blocks share no work in the backward pass on CPU: compile with `setup.compiler_options`.

  Args:
    block: a linen module class.
    policy: "none": everything the gradient needs is kept. "block": only x; the whole block is computed again, a third
      more work. "preactivations": x and what is marked by `saved`; activations, norms and shifts are computed again,
      no matrix product is (products of activations, as in attention, excepted).

  Raises:
    ValueError: unknown policy.
  """
  if policy not in POLICIES:
    raise ValueError(f"unknown remat {policy!r}; one of {', '.join(POLICIES)}")
  if policy != "none":
    block = _computed_again(block, policy)

  class Block(block):
    """`block`, its x with a gradient of its own."""

    def __call__(self, x, train):
      return super().__call__(_own_gradient(x), train)

  return Block


def _computed_again(block, policy):
  keep = jax.checkpoint_policies.save_only_these_names(_SAVED) if policy == "preactivations" else None

  class Block(block):
    """`block`, with a backward pass that starts from what was kept."""

    def __call__(self, x, train):
      def plain(module, x):
        return block.__call__(module, x, train)

      def forward(module, x):
        return nn.vjp(nn.remat(plain, prevent_cse=False, policy=keep), module, x)

      def backward(pull_back, g):
        # The barrier makes the second computation one of its own. nn.remat has one too, but holds g back as well: then
        # XLA cannot sum up for a norm's gradient in the matrix product that g comes from.
        return jax.lax.optimization_barrier(pull_back)(g)

      return nn.custom_vjp(plain, forward_fn=forward, backward_fn=backward)(self, x)

  return Block
