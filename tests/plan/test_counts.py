"""What is read from HLO, on a real program.

two_loops.hlo is what libtpu 0.0.42.1 made, through jax 0.10.2, for v5e:2x2 of the gradient with respect to w of
    sum of tanh(x @ w).mean() for x in xs, by jax.lax.scan
with bfloat16 w [256, 256] on every chip and xs [3, 1024, 256] split over the second dimension; its tables of source
lines are left out.
"""

import pathlib

import pytest

from mlpvision.plan import counts, hlo

_TEXT = (pathlib.Path(__file__).parent / "two_loops.hlo").read_text()
_FORWARD, _BACKWARD = 6977, 4911  # estimated_cycles of the fusion in each loop


@pytest.fixture(scope="module")
def module():
  return hlo.parse(_TEXT)


def test_operations_are_taken_apart(module):
  assert module.entry == "main.5_spmd"
  loop = module.computations[module.entry]["while.29"]
  assert (loop.opcode, loop.operands, loop.op_name) == ("while", ("tuple.58",), "jit(step)/jvp()/while")
  assert set(loop.called) == {"wide.region_1.2_spmd", "wide.region_0.1_spmd.sunk"}
  fusion = module.computations["wide.region_2.3_spmd.clone.sunk"]["fusion.29"]
  assert (fusion.type, fusion.cycles) == ("bf16[256,256]{1,0:T(8,128)(2,1)S(1)}", _BACKWARD)
  assert len(fusion.operands) == 6
  assert module.computations["wide.region_1.2_spmd"]["constant.64.clone.1"].attributes.startswith("(3)")


def test_loops_count_as_often_as_they_run(module):
  found = counts.count(module)
  assert [(loop.trips, loop.cycles) for loop in found.loops] == [(3, _FORWARD), (3, _BACKWARD)]
  assert (found.cycles, found.unknown_cycles) == (3 * (_FORWARD + _BACKWARD), 0)
  assert found.flops_factor == 3  # all matrix products are in the loops
  assert 2.8 < found.bytes_factor < 3  # and nearly all bytes
  assert found.kernels == [
    (3 * _FORWARD, 3, "fusion", "jvp()/while/body/closed_call/dot_general"),
    (3 * _BACKWARD, 3, "fusion", "transpose(jvp())/while/body/closed_call/dot_general"),
  ]


def _loops(*changes):
  """Trips of the two loops when the text is changed by (old, new) pairs, each found in it."""
  text = _TEXT
  for old, new in changes:
    assert old in text
    text = text.replace(old, new)
  return [loop.trips for loop in counts.count(hlo.parse(text)).loops]


def test_a_loop_that_depends_on_data_counts_once():
  test = "%constant.64.clone.1), direction="
  found = counts.count(hlo.parse(_TEXT.replace(f"{test}LT", f"{test}NE")))
  assert [loop.trips for loop in found.loops] == [None, 3]
  assert (found.cycles, found.unknown_cycles) == (_FORWARD + 3 * _BACKWARD, _FORWARD)


def test_first_value_and_step_of_a_counter_count():
  step, first = "%constant.61.clone.1..sunk = s32[]{:T(128)} constant", "%constant.70.clone = s32[]{:T(128)} constant"
  by_two = (f"{step}(1)", f"{step}(2)")
  assert _loops(by_two) == [2, 3]  # 0, 2
  assert _loops(by_two, (f"{first}(0)", f"{first}(1)")) == [1, 2]  # 1; and 1, 2


def test_what_the_compiler_wrote_of_trips_decides():
  body = "body=%wide.region_0.1_spmd.sunk"
  assert _loops((body, f'{body}, backend_config={{"known_trip_count":{{"n":"7"}}}}')) == [7, 3]


def test_flops_of_products_in_nested_fusions(module):
  body = "wide.region_0.1_spmd.sunk"
  assert sum(counts.flops(module, body, op) for op in module.computations[body].values()) == 2 * 256**3


@pytest.mark.parametrize(
  ("left", "right", "result", "attributes", "multiply_adds"),
  [
    ("bf16[64,768]", "bf16[768,1000]", "f32[64,1000]", "dim_labels=bf_io->bf", 64 * 768 * 1000),
    # Patches of 16 x 16.
    ("bf16[2,224,224,3]", "bf16[16,16,3,8]", "bf16[2,14,14,8]",
     "window={size=16x16 stride=16x16}, dim_labels=b01f_01io->b01f", 2 * 196 * 16 * 16 * 3 * 8),
    # A window of two over one position and its padding: only one of two kernel positions meets it, for each output.
    ("bf16[10,30,1]", "bf16[10,2,48]", "bf16[30,2,48]",
     "window={size=2 pad=1_1 rhs_reversal=1}, dim_labels=fb0_i0o->b0f", 30 * 10 * 2 * 48),
    # The transpose of a convolution with stride 2: half of the positions are holes.
    ("f32[1,4,1]", "f32[2,1,1]", "f32[1,8,1]", "window={size=2 pad=1_1 lhs_dilate=2}, dim_labels=b0f_0io->b0f", 8),
    ("f32[5,6]", "f32[6,7]", "f32[5,7]", "lhs_contracting_dims={1}, rhs_contracting_dims={0}", 5 * 6 * 7),
  ],
)  # fmt: skip
def test_flops_by_hand(left, right, result, attributes, multiply_adds):
  opcode = "dot" if "contracting" in attributes else "convolution"
  module = hlo.parse(
    f"ENTRY %main (a: {left}, b: {right}) -> {result} {{\n"
    f"  %a = {left}{{0}} parameter(0)\n  %b = {right}{{0}} parameter(1)\n"
    f"  ROOT %c = {result}{{0}} {opcode}(%a, %b), {attributes}\n}}\n"
  )
  assert counts.flops(module, "main", module.computations["main"]["c"]) == 2 * multiply_adds


def test_a_collective_counts_once_however_often_it_is_written(module):
  assert counts.count(module).collectives == {"all-reduce": (1, 256 * 256 * 2)}
  lines = _TEXT.splitlines()
  (line,) = (line for line in lines if " all-reduce(" in line)
  copy = line.replace("ROOT %all-reduce.1", "%all-reduce.0")
  again = _TEXT.replace(line, f"{copy}\n{line}")
  assert counts.count(hlo.parse(again)).collectives == {"all-reduce": (1, 131_072)}
  other = _TEXT.replace(line, f"{copy.replace('channel_id=2', 'channel_id=3')}\n{line}")
  assert counts.count(hlo.parse(other)).collectives == {"all-reduce": (2, 262_144)}


@pytest.mark.parametrize(
  ("type_", "size", "in_hbm"),
  [
    ("bf16[3,256,256]{2,1,0:T(8,128)(2,1)}", 393_216, 393_216),
    ("bf16[3,256,256]{2,1,0:T(8,128)(2,1)S(1)}", 393_216, 0),
    ("(s32[]{:T(128)}, /*index=5*/f32[10]{0:T(128)}, pred[8]{0:T(128)S(1)})", 4 + 40 + 8, 44),
    ("u4[3]{0}", 2, 2),
  ],
)
def test_bytes_of_a_type(type_, size, in_hbm):
  assert hlo.num_bytes(type_) == size
  assert hlo.num_bytes(type_, in_hbm=True) == in_hbm


def test_what_is_fetched_counts_as_the_part_that_is_fetched():
  module = hlo.parse(
    "ENTRY %main (p: u8[64,224]) -> u8[16,224] {\n"
    "  %p = u8[64,224]{1,0:T(32,128)} parameter(0)\n"
    "  %start = ((u8[64,224]{1,0:T(32,128)}), u8[16,224]{1,0:T(32,128)S(1)}, s32[]{:S(2)}) slice-start(%p),"
    " slice={[0:16]}\n"
    "  ROOT %done = u8[16,224]{1,0:T(32,128)S(1)} slice-done(%start)\n"
    "}\n"
  )
  assert counts.count(module).hbm_bytes == 16 * 224


def test_blocks_of_a_model_share_their_kernels():
  assert counts.shorten("jit(f)/jvp(S2MLP)/block_11/mlp/mlp/dot_general") == "jvp(S2MLP)/block_*/mlp/dot_general"
  assert counts.shorten("jit(f)/MixerBlock_3/Dense_1/add") == "MixerBlock_*/Dense_1/add"
  assert counts.shorten("jit(f)/stage_2_block_3/norm") == "stage_2_block_*/norm"


def test_text_without_an_entry_is_refused():
  with pytest.raises(ValueError, match="ENTRY"):
    hlo.parse("not HLO")
