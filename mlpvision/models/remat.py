"""What the backward pass finds in memory, and what it computes again."""

from flax import linen as nn
import jax

from mlpvision.models import forms

POLICIES = ("none", "block", "preactivations")


def wrap(block: type[nn.Module], policy: str) -> type[nn.Module]:
  """A block module, called as block(x, train), whose backward pass follows the policy; the numbers are the same.

  Whatever the policy, blocks share no work in the backward pass on CPU: compile with
  `models.compiler_options`.

  Args:
    block: a linen module class.
    policy: "none": everything the gradient needs is kept. "block": only x; the whole block is computed again, a third
      more work. "preactivations": x and what `forms.saved` marks; activations, norms and shifts are computed again, no
      matrix product is (products of activations, as in attention, excepted).

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
      return super().__call__(forms.stored_gradient(x), train)

  return Block


def _computed_again(block, policy):
  keep = jax.checkpoint_policies.save_only_these_names(forms.SAVED) if policy == "preactivations" else None

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
