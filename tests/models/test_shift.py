"""Both shifts compared with reference arrays and plain loops, in value and gradient, in both lowerings."""

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpvision.models import forms, shift

# Table 7's letters in the reference file's names.
_SETS = {"four": "a_four", "eight": "b_eight", "up_right": "c_up_right", "left_down": "d_left_down"}
_SETS |= {"up_down": "e_up_down", "left_right": "f_left_right", "up": "g_up", "down": "h_down"}
_SETS |= {"left": "i_left", "right": "j_right"}


def _loop(x, groups, fill):
  """The definition, element by element: (result, index of the source of each element or -1)."""
  _, height, width, _ = x.shape
  out, source = np.zeros_like(x), np.full(x.shape[1:], -1)
  flat = np.arange(np.prod(x.shape[1:])).reshape(x.shape[1:])
  start = 0
  for (dy, dx), size in groups:
    for c in range(start, start + size):
      for y in range(height):
        for w in range(width):
          sy, sx = y - dy, w - dx
          if fill == "circular":
            sy, sx = sy % height, sx % width
          elif not (0 <= sy < height and 0 <= sx < width):
            if fill == "zero":
              continue
            sy, sx = y, w
          out[:, y, w, c] = x[:, sy, sx, c]
          source[y, w, c] = flat[sy, sx, c]
    start += size
  return out, source


def _loop_gradient(cotangent, source):
  """Sends each cotangent back to the element that it came from."""
  flat = cotangent.reshape(cotangent.shape[0], -1)
  gradient = np.zeros_like(flat)
  for target, origin in enumerate(source.ravel()):
    if origin >= 0:
      gradient[:, origin] += flat[:, target]
  return gradient.reshape(cotangent.shape)


def test_every_set_of_table_7_is_in_the_reference():
  _, _, arrays = goldens.read("shifts")
  assert set(_SETS) | {"none"} == set(shift.DIRECTIONS)
  assert {f"out/{name}" for name in _SETS.values()} == {key for key in arrays if key.startswith("out/")}


@pytest.mark.parametrize("name", _SETS)
def test_spatial_shift_equals_the_reference(name):
  _, _, arrays = goldens.read("shifts")
  expected = arrays[f"out/{_SETS[name]}"]
  np.testing.assert_array_equal(shift.spatial_shift(jnp.asarray(arrays["input"]), name), expected)
  pairs = arrays[f"directions/{_SETS[name]}"].tolist()
  np.testing.assert_array_equal(shift.spatial_shift(jnp.asarray(arrays["input"]), pairs), expected)
  assert shift.resolve_directions(name) == tuple(map(tuple, pairs))


def test_axial_shift_equals_the_reference():
  _, _, arrays = goldens.read("shifts")
  keys = [key for key in arrays if key.startswith("axial/")]
  assert len(keys) >= 56

  def shifted(x):
    for key in keys:
      size, axis, padding, dilation = key.removeprefix("axial/").split("_")
      yield shift.axial_shift(x, int(size[4:]), int(axis[4:]), padding, int(dilation[8:]))

  for key, result in zip(keys, jax.jit(lambda x: list(shifted(x)))(arrays["input"]), strict=True):
    np.testing.assert_array_equal(result, arrays[key], err_msg=key)


def _cases():
  random = np.random.default_rng(0)
  for fill in ("keep", "zero", "circular"):
    for shape in ((2, 5, 7, 16), (1, 1, 3, 8), (3, 4, 4, 24), (2, 2, 1, 4)):
      offsets = [tuple(map(int, random.integers(-3, 4, 2))) for _ in range(4)]
      yield fill, shape, tuple((offset, shape[-1] // 4) for offset in offsets)
  yield "keep", (2, 6, 5, 8), tuple((offset, 2) for offset in shift.DIRECTIONS["four"])
  yield "zero", (1, 3, 3, 7), (((-9, 0), 3), ((0, 9), 3), ((0, 0), 1))  # moves beyond the map, uneven groups


@pytest.mark.parametrize(("fill", "shape", "groups"), list(_cases()))
def test_value_and_gradient_equal_a_loop_bit_for_bit(fill, shape, groups):
  random = np.random.default_rng(1)
  x, cotangent = random.standard_normal((2, *shape)).astype(np.float32)
  expected, source = _loop(x, groups, fill)

  def values_and_gradients(x, g):
    functions = shift._shift, shift.by_roll, forms.by_pad
    pairs = [jax.vjp(lambda x, function=function: function(x, groups, fill), x) for function in functions]
    return [(value, pull_back(g)[0]) for value, pull_back in pairs]

  runs = [jax.jit(values_and_gradients)(x, cotangent)]
  if shape == (2, 6, 5, 8):  # once without a compiler that sees the whole
    runs.append(values_and_gradients(x, cotangent))
  used = runs[0][0][1]
  for value, gradient in sum(runs, []):
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_allclose(gradient, _loop_gradient(cotangent, source), rtol=1e-6)
    np.testing.assert_array_equal(gradient, used)


@pytest.mark.parametrize("padding", ["reflect", "replicate"])
def test_gradient_of_other_paddings_is_the_adjoint(padding):
  """<shift(x), g> = <x, adjoint(g)>, as the shift is linear."""
  random = np.random.default_rng(2)
  x, g = jnp.asarray(random.standard_normal((2, 2, 6, 5, 15)).astype(np.float32))
  value, pull_back = jax.vjp(lambda x: shift.axial_shift(x, 5, 2, padding, 2), x)
  np.testing.assert_allclose((value * g).sum(), (x * pull_back(g)[0]).sum(), rtol=1e-4)


@pytest.mark.parametrize("platform", ["tpu", "cpu", "cuda", "rocm"])
def test_lowering_per_platform(platform):
  """One pad per offset where `forms.BY_PAD` says so; the definition elsewhere, which slices and concatenates."""
  function = jax.jit(lambda x: shift.spatial_shift(x))
  text = function.trace(jnp.zeros((2, 8, 8, 16))).lower(lowering_platforms=(platform,)).as_text()
  assert ("stablehlo.pad" in text) == (platform in forms.BY_PAD)
  assert ("stablehlo.concatenate" in text) == (platform == "rocm")


def test_types_pass_through():
  for dtype in (jnp.bfloat16, jnp.float16, jnp.int32):
    x = jnp.arange(2 * 3 * 3 * 4).reshape(2, 3, 3, 4).astype(dtype)
    for function in (shift.spatial_shift, lambda x: shift.axial_shift(x, 3, 1)):
      result = jax.eval_shape(function, x)
      assert result.dtype == dtype
      assert result.shape == x.shape


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda x: shift.spatial_shift(x, "sideways"), "unknown directions"),
    (lambda x: shift.spatial_shift(x[..., :6], "four"), "equal groups"),
    (lambda x: shift.spatial_shift(x, border="wrap"), "unknown border"),
    (lambda x: shift.axial_shift(x, 4, 1), "odd"),
    (lambda x: shift.axial_shift(x, 3, 3), "axis"),
    (lambda x: shift.axial_shift(x, 3, 1, "mirror"), "unknown padding"),
    (lambda x: shift.axial_shift(x, 3, 1, dilation=0), "dilation"),
    (lambda x: shift.axial_shift(x, 7, 1, "reflect"), "reflect"),
  ],
)
def test_wrong_arguments_are_named(call, message):
  with pytest.raises(ValueError, match=message):
    call(jnp.zeros((1, 3, 3, 8)))
