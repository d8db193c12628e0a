"""Files that claim sizes they do not have, or ask for work that never ends: refused, in little memory."""

import io
import json
import struct
import tracemalloc
import zipfile

import goldens
import ml_dtypes
import numpy as np
import pytest

from mlpvision import weights
from mlpvision.weights import pickles

_MIXER = {
  "stem.proj.weight": (8, 3, 16, 16), "stem.proj.bias": (8,), "norm.weight": (8,), "norm.bias": (8,),
  "head.weight": (3, 8), "head.bias": (3,), "blocks.0.norm1.weight": (8,), "blocks.0.norm1.bias": (8,),
  "blocks.0.norm2.weight": (8,), "blocks.0.norm2.bias": (8,), "blocks.0.mlp_tokens.fc1.weight": (4, 4),
  "blocks.0.mlp_tokens.fc1.bias": (4,), "blocks.0.mlp_tokens.fc2.weight": (4, 4), "blocks.0.mlp_tokens.fc2.bias": (4,),
  "blocks.0.mlp_channels.fc1.weight": (8, 8), "blocks.0.mlp_channels.fc1.bias": (8,),
  "blocks.0.mlp_channels.fc2.weight": (8, 8), "blocks.0.mlp_channels.fc2.bias": (8,),
}  # fmt: skip


def refused(path, match, megabytes=250, **options):
  tracemalloc.start()
  try:
    with pytest.raises(weights.WeightsError, match=match) as error:
      weights.load(path, **options)
    assert tracemalloc.get_traced_memory()[1] < megabytes * 1e6
  finally:
    tracemalloc.stop()
  assert len(str(error.value)) < 20_000
  assert str(error.value).replace("\n", " ").isprintable()


# A pickle by hand.
def tup(*items):
  return b"(" + b"".join(items) + b"t"


def text(value):
  return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value):
  data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
  return b"\x8a" + bytes([len(data)]) + data


def name(module, attribute):
  return f"c{module}\n{attribute}\n".encode()


def storage(key, count, kind=None):
  return tup(text("storage"), kind or name("torch", "FloatStorage"), key, text("cpu"), integer(count)) + b"Q"


def tensor(shape, strides=None, key="0", count=None, offset=0, size=tup):
  strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))] if strides is None else strides
  data = storage(text(key), int(np.prod(shape)) if count is None else count)
  numbers = (integer(offset), size(*map(integer, shape)), tup(*map(integer, strides)))
  return name("torch._utils", "_rebuild_tensor_v2") + tup(data, *numbers, b"\x89", b"}") + b"R"


def dictionary(items):
  return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def pth(path, body, data=None):
  """A .pth file with this pickle, and these storages."""
  with zipfile.ZipFile(path, "w") as file:
    file.writestr("archive/data.pkl", b"\x80\x02" + body + b".")
    for key, value in (data or {"0": bytes(16)}).items():
      file.writestr(f"archive/data/{key}", value)
  return path


def mixer(path, replaced=None, data=None, **more):
  """A Mixer of one block, some of its tensors replaced."""
  items = {key: tensor(shape, key=str(i)) for i, (key, shape) in enumerate(_MIXER.items())}
  stored = {str(i): np.zeros(shape, np.float32).tobytes() for i, shape in enumerate(_MIXER.values())}
  return pth(path, dictionary({**items, **(replaced or {}), **more}), {**stored, **(data or {})})


_LAUGHS = text("a") + b"2\x86" * 60  # prints, hashes and compares in 2^60 steps
_DEEP = b")" + b"\x85" * 20_000
PICKLES = {
  "shared tuples as a key": (b"}" + _LAUGHS + b"Ns", "no state dict"),
  "deep tuple as a key": (b"}" + _DEEP + b"Ns", "no state dict"),
  "shared tuples as a storage's type": (storage(text("0"), 4, _LAUGHS), "unknown reference"),
  "shared tuples as a storage's key": (storage(_LAUGHS, 4), "without a name"),
  "shared tuples as a reference": (_LAUGHS + b"Q", "unknown reference"),
  "a number as a reference": (b"K\x01Q", "unknown reference"),
  "text as a reference": (b"Pabc\n", "unknown reference"),
  "shared tuples as an argument": (name("torch", "Size") + _LAUGHS + b"\x85R", "no state dict"),
  "shared tuples as a dimension": (tensor((1,), size=lambda _: tup(_LAUGHS)), "shape is invalid"),
  "list of dimensions": (tensor((1,), size=lambda _: b"]"), "without a shape"),
  "memo index of 2^31": (b"}r\x00\x00\x00\x80" + text("a") + b"Ns", "the keys a"),
  "object that is not in the memo": (b"h\x07", "before it is there"),
  "list in itself": (b"]q\x00h\x00a", "no state dict"),
  "state dict in itself": (b"}q\x00" + text("model") + b"h\x00s", "the keys model"),
  "one tuple in many shapes": (
    b"(" + b"K\x01" * 50_000 + b"tq\x05"
    + name("torch._utils", "_rebuild_tensor_v2") + tup(storage(text("0"), 4), integer(0), b"h\x05", b"h\x05") + b"R",
    "shape is invalid",
  ),
  "pairs of an ordered dict, again and again": (
    b"](" + b"N" * 50_000 + b"eq\x05" + (name("collections", "OrderedDict") + b"h\x05\x85R0") * 50, "instructions"
  ),
  "long key, again and again": (
    b"}(X" + struct.pack("<I", 10**6) + b"a" * 10**6 + b"q\x01N" + b"h\x01N" * 20_000 + b"u", "the keys none"
  ),
  "integers with one hash": (
    b"}(" + b"".join(integer(i * (2**61 - 1)) + b"N" for i in range(1, 20_000)) + b"u", "the keys none"
  ),
  "text of 4 GB": (b"X\xff\xff\xff\xffabc", "too early"),
  "text of 2^63 bytes": (b"\x8d" + b"\xff" * 7 + b"\x7f", "too early"),
  "negative length": (b"\x8b\xff\xff\xff\xff", "too early"),
  "integer of a million bytes": (b"\x8b" + struct.pack("<I", 10**6) + b"\x7f" * 10**6, "no state dict"),
  "integer of 60,000 digits": (b"L" + b"9" * 60_000 + b"L\n", "is damaged"),
  "extension code": (b"\x82\x01", "0x82, is not an instruction"),
  "buffer beside the pickle": (b"\x97", "0x97, is not an instruction"),
  "frame of 2^64 bytes": (b"\x95" + b"\xff" * 8 + b"}", "no state dict"),
  "attributes of a type": (name("torch", "BFloat16Storage") + b"}b", "sets attributes"),
  "attributes of a tensor": (tensor((4,)) + b"}b", "sets attributes"),
  "items of a type": (name("torch", "FloatStorage") + text("a") + b"Ns", "sets an item"),
  "items of a tensor": (tensor((4,)) + b"Na", "appends to"),
  "call of a tensor": (tensor((4,)) + b")R", "calls something"),
  "call of a number": (b"K\x01)R", "calls something"),
  "escape sequences in a name": (b"c\x1b[31m\n\x1b]0;x\x07\n)R", r"refers to \\x1b\[31m"),
  "long name": (name("m" * 60_000, "n" * 60_000), "refers to mmm"),
  "no code, only its end": (b"", "is damaged"),
  "half of an item": (b"}(K\x01u", "is damaged"),
  "negative offset": (tensor((2,), offset=-1), "strides are invalid"),
  "negative stride": (tensor((2, 2), (-1, 1)), "strides are invalid"),
  "storage of 2^70 numbers": (tensor((2,), count=2**70), "without a name or a size"),
  "storage of 2^50 numbers": (tensor((2,), count=2**50), "too few for"),
  "40 dimensions": (tensor((1,) * 40), "shape is invalid"),
  "tensor without a storage": (name("torch._utils", "_rebuild_tensor_v2") + b")R", "without a storage"),
}  # fmt: skip


@pytest.mark.parametrize("case", PICKLES)
def test_a_pickle_takes_little_time_and_memory(tmp_path, case):
  body, match = PICKLES[case]
  refused(pth(tmp_path / "x.pth", body), match)


def test_the_instructions_of_a_pickle_are_counted(monkeypatch):
  assert pickles._MAX_STEPS == 2_000_000
  monkeypatch.setattr(pickles, "_MAX_STEPS", 20_000)  # which take a hundredth of the time
  pickles.Machine(b"N0" * 9_999 + b"N.").run()
  with pytest.raises(ValueError, match="more than 20,000 instructions"):
    pickles.Machine(b"N0" * 10_000 + b"N.").run()


@pytest.mark.parametrize(
  ("shape", "strides", "count"),
  [
    ((2**20, 2**20), (0, 0), 4),
    ((2**59, 1), (0, 0), 4),
    ((1000, 1000), (1, 1), 2000),
    ((8,), (0,), 4),
    ((3,), (1,), 2),
  ],
)
def test_a_tensor_shows_no_more_numbers_than_there_are(tmp_path, shape, strides, count):
  replaced = {"blocks.0.norm1.weight": tensor(shape, strides, "x", count)}
  refused(mixer(tmp_path / "x.pth", replaced, {"x": bytes(4 * count)}), "numbers of a storage of|GB of memory")


def test_an_expanded_tensor_that_is_not_needed(tmp_path):
  data = {key: np.ones(shape, np.float32).tobytes() for key, shape in _MIXER.items()}
  state = dictionary({key: tensor(shape, key=key) for key, shape in _MIXER.items()})
  body = dictionary({"model": state, "optimizer": dictionary({"step": tensor((2**40,), (0,), "head.bias", 3)})})
  assert weights.load(pth(tmp_path / "x.pth", body, data)).info.head == "file"


def test_many_names_of_one_storage(tmp_path):
  """Each would become an array of its own."""
  more = {f"blocks.{i}.mlp_channels.fc1.weight": tensor((1000, 1000), key="x") for i in range(120)}
  refused(mixer(tmp_path / "x.pth", data={"x": bytes(4_000_000)}, **more), r"0\.5 GB of memory")


@pytest.mark.parametrize("number", ["999999999", "1" + "0" * 200])
def test_a_number_in_a_name_is_no_number_of_blocks(tmp_path, number):
  more = {f"blocks.{number}.norm1.weight": tensor((8,), key="x")}
  refused(mixer(tmp_path / "x.pth", data={"x": bytes(32)}, **more), "blocks in 1 stages do not fit 19 arrays")


def test_as_many_stages_as_arrays(tmp_path):
  """Each doubles the channels, and takes time to trace."""
  names = [f"layers.{i}.blocks.0.norm1.weight" for i in range(50)]
  more = {"patch_embed.proj.weight": tensor((1, 1, 2, 2)), "layers.0.blocks.0.mlp.fc1.weight": tensor((2, 2, 1, 1))}
  path = pth(tmp_path / "x.pth", dictionary({name: tensor((4,)) for name in names} | more))
  refused(path, "50 blocks in 50 stages", num_classes=None)


@pytest.mark.parametrize("length", [251, 900])
def test_a_long_name(tmp_path, length):
  refused(mixer(tmp_path / "x.pth", **{"b" * length: tensor((8,), key="1")}), f"names of up to {length}")


@pytest.mark.parametrize("shape", [(), (0,), (0, 0), (1, 1, 1, 1), (2**20, 0), (8, 3, 0, 0)])
@pytest.mark.parametrize("key", _MIXER)
def test_shapes_of_no_layer(tmp_path, key, shape):
  replaced = {key: tensor(shape, key="0", count=6144)}
  refused(mixer(tmp_path / "x.pth", replaced), r"in the file|impossible for|other shapes|has no head|does not match")


def test_two_names_of_one_parameter(tmp_path):
  """In the numbering before Flax linen, which is translated."""
  _, params, _ = goldens.read("mixer_npz")
  old = {key.replace("LayerNorm_1", "LayerNorm_2"): array for key, array in params.items()}
  np.savez(tmp_path / "x.npz", **old, **{"MixerBlock_0/LayerNorm_02/bias": params["stem/bias"]})
  refused(tmp_path / "x.npz", "LayerNorm_2/bias and .*LayerNorm_02/bias")


def test_the_machine_reads_what_torch_writes_in_newer_protocols(tmp_path):
  """Protocol 4 names types and sets by other instructions."""
  frame = b"\x95" + bytes(8)
  named = b"\x8c\x05torch\x94\x8c\x04Size\x94\x93"
  body = (
    frame + b"}(" + text("set") + b"\x8f(K\x01\x90" + text("frozen") + b"(K\x01\x91" + text("size") + named + b")\x81"
  )
  body += text("model") + dictionary({key: tensor(shape, key=key) for key, shape in _MIXER.items()}) + b"u"
  data = {key: np.ones(shape, np.float32).tobytes() for key, shape in _MIXER.items()}
  assert (weights.load(pth(tmp_path / "x.pth", body, data)).params["head"]["kernel"] == 1).all()


# Zip archives.
def _entries(data):
  """Positions of the members in the directory of an archive."""
  count, _, at = struct.unpack_from("<10xHII", data, data.rfind(b"PK\5\6"))
  for _ in range(count):
    yield at
    at += 46 + sum(struct.unpack_from("<HHH", data, at + 28))


@pytest.mark.parametrize(
  ("field", "layout", "value"),
  [
    pytest.param(24, "<I", 2**32 - 2, id="size"),
    pytest.param(24, "<I", 2**32 - 1, id="size elsewhere"),
    pytest.param(20, "<I", 2**32 - 2, id="packed size"),
    pytest.param(42, "<I", 0, id="position of another"),
    pytest.param(42, "<I", 2**31, id="position beyond the end"),
    pytest.param(28, "<H", 65535, id="length of the name"),
    pytest.param(30, "<H", 65535, id="length of the extra fields"),
    pytest.param(10, "<H", 99, id="unknown compression"),
    pytest.param(10, "<H", 8, id="compression"),
    pytest.param(8, "<H", 1, id="encryption"),
    pytest.param(16, "<I", 12345, id="checksum"),
  ],
)
def test_lies_of_an_archive(tmp_path, field, layout, value):
  path = mixer(tmp_path / "x.pth")
  data = bytearray(path.read_bytes())
  struct.pack_into(layout, data, list(_entries(data))[3] + field, value)
  path.write_bytes(data)
  refused(path, "damaged")


@pytest.mark.parametrize("shift", [0, 1, 2**40])
def test_the_64_bit_fields_of_archives_beyond_4_gb(tmp_path, shift):
  """Their sizes and positions are in extra fields, and their directory's in a record of its own."""
  path = mixer(tmp_path / "x.pth")
  data, entries = path.read_bytes(), b""
  for at in _entries(data):
    packed, size, name_size = struct.unpack_from("<IIH", data, at + 20)
    (header,) = struct.unpack_from("<I", data, at + 42)
    key = data[at + 46 : at + 46 + name_size]
    fields = struct.pack("<IIHHHHHII", 2**32 - 1, 2**32 - 1, name_size, 28, 0, 0, 0, 0, 2**32 - 1)
    extra = struct.pack("<HHQQQ", 1, 24, size, packed, header + shift)
    entries += data[at : at + 20] + fields + key + extra
  start = next(_entries(data))
  record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(entries), start)
  locator = struct.pack("<4sIQI", b"PK\6\7", 0, start + len(entries), 1)
  end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
  path.write_bytes(data[:start] + entries + record + locator + end)
  if shift:
    refused(path, "damaged")
  else:
    assert weights.load(path).info.naming == "timm"


def test_members_that_share_bytes_or_names(tmp_path):
  path = mixer(tmp_path / "x.pth")
  data = bytearray(path.read_bytes())
  first, *others = list(_entries(data))[2:]
  for entry in others:
    data[entry + 42 : entry + 46] = data[first + 42 : first + 46]
  path.write_bytes(data)
  refused(path, "overlaps")
  mixer(path)
  with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
    file.writestr("archive/data/0", b"other")
  refused(path, "two members named")


def test_an_archive_of_empty_members(tmp_path):
  """46 bytes each, but an object in memory."""
  entry = struct.pack("<4s4xHH4xIIIHHH8xI", b"PK\1\2", 0, 0, 0, 0, 0, 1, 0, 0, 0) + b"a"
  end = struct.pack("<4s4xHHIIH", b"PK\5\6", 65535, 65535, 700_000 * len(entry), 30, 0)
  (tmp_path / "x.npz").write_bytes(b"PK\3\4" + bytes(26) + entry * 700_000 + end)
  refused(tmp_path / "x.npz", "too large")


# NumPy archives.
def _npy(header, data=b"", version=1):
  header = header.encode().ljust(117) + b"\n"
  return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(header)) + header + data


def _f4(shape):
  return f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}"


@pytest.mark.parametrize(
  ("member", "match"),
  [
    (_npy(_f4("(1099511627776,)")), "has 128 bytes, not those of"),
    (_npy(_f4("(-8,)"), bytes(32)), "no valid shape"),
    (_npy(_f4("(True,)"), bytes(4)), "no valid shape"),
    (_npy(_f4("{8}"), bytes(32)), "no valid shape"),
    (_npy(_f4(f"({'9' * 600},)")), "not those of"),
    (_npy("(" * 900), "is damaged"),
    (_npy("-" * 900 + "1"), "is damaged"),
    (_npy("open('x', 'w')"), "is damaged"),
    (_npy("{}"), "is damaged"),
    (_npy(_f4("(8,)"), bytes(32), version=9), "does not start with"),
    (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + b" " * 5000, "does not start with"),
    (b"", "does not start with"),
    (_npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"cos\nsystem\n."), "contains Python objects"),
    (_npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (8,)}", bytes(32)), "of type structures"),
    (_npy("{'descr': '|V1', 'fortran_order': False, 'shape': (8,)}", bytes(8)), "float8"),
  ],
)
def test_headers_of_npz(tmp_path, member, match):
  _, params, _ = goldens.read("mixer_npz")
  path = tmp_path / "x.npz"
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
    for key, array in params.items():
      data = io.BytesIO()
      np.save(data, array)
      file.writestr(f"{key}.npy", member if key == "stem/bias" else data.getvalue())
  refused(path, match)


@pytest.mark.parametrize("declared", [220_000_000, 8])
def test_a_member_that_unpacks_to_more(tmp_path, declared):
  """Whether it says so, or not."""
  _, params, _ = goldens.read("mixer_npz")
  path = tmp_path / "x.npz"
  np.savez_compressed(path, **{key: array for key, array in params.items() if key != "stem/bias"})
  with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file, file.open("stem/bias.npy", "w") as member:
    member.write(_npy(_f4(f"({declared // 4},)")))
    for _ in range(220 if declared > 8 else 20):
      member.write(bytes(10**6))
  if declared == 8:
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, list(_entries(data))[-1] + 24, 128 + 8)
    path.write_bytes(data)
  refused(path, "would take 0.4 GB of memory" if declared > 8 else "longer than the archive says")


def test_compressed_and_column_major_and_bfloat16(tmp_path):
  _, params, _ = goldens.read("mixer_npz")
  rounded = {key: array.astype(ml_dtypes.bfloat16) for key, array in params.items()}
  np.savez_compressed(tmp_path / "x.npz", **{key: np.asfortranarray(array) for key, array in rounded.items()})
  found = weights.load(tmp_path / "x.npz").params
  np.testing.assert_array_equal(found["stem"]["kernel"], rounded["stem/kernel"].astype(np.float32))
  assert found["stem"]["kernel"].flags.c_contiguous


# .safetensors
def _entry(shape, offsets, dtype="F32"):
  return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
  ("header", "match"),
  [
    ({"a": _entry([4], [0, 32])}, "is not in the file"),
    ({"a": _entry([4], [-16, 0])}, "is not in the file"),
    ({"a": _entry([4], [0.0, 16.0])}, "is not in the file"),
    ({"a": _entry([2**40], [0, 16])}, "needs 1099511627776 numbers"),
    ({"a": _entry([2], [0, 16])}, "not those of the shape"),
    ({"a": _entry([2, True], [0, 16])}, "shape is invalid"),
    ({"a": _entry("4", [0, 16])}, "shape is invalid"),
    ({"a": _entry(4, [0, 16])}, "array a"),
    ({"a": []}, "array a"),
    ({"a": _entry([2], [0, 8])}, "the file has 16"),
    ({"__metadata__": [1], "a": _entry([4], [0, 16])}, "metadata is not text"),
    ({"__metadata__": {"a": 1}, "a": _entry([4], [0, 16])}, "metadata is not text"),
    ({"head.weight": _entry([16], [0, 16], "F8_E4M3")}, "no known model|F8_E4M3"),
    ({f"blocks.{i}.norm1.weight": _entry([4], [0, 16]) for i in range(10_001)}, "10,001 arrays"),
    ('{"a":' * 100_000, "is damaged"),
    ('{"a":' + "[" * 100_000, "is damaged"),
    ('{"a":{"dtype":"F32","shape":[' + "9" * 5000 + '],"data_offsets":[0,16]}}', "is damaged"),
    ("{}[]", "is damaged"),
    ('{"\x1b[31m": 1}', "is damaged"),
    ("{" + " " * (17 << 20), "longer than"),
  ],
)
def test_headers_of_safetensors(tmp_path, header, match):
  header = (json.dumps(header) if isinstance(header, dict) else header).encode()
  (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
  refused(tmp_path / "x.safetensors", match)
