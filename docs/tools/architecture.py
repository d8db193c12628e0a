"""Diagrams of the families: the network, its block, and its token mixing. Sizes are taken from the models."""

from matplotlib.figure import Figure
import numpy as np

from docs.tools import successors
from docs.tools.diagram import FILL, arrow, column, grid, note, plain_network, sheet
from mlpvision import models
from mlpvision.models import shift


def draw(family: str) -> Figure:
  """A matplotlib figure of one variant of a family in FAMILIES, at 224 pixels."""
  return FAMILIES[family]()


def _mixer():
  m = models.create("mixer_b16")
  side = 224 // m.patch_size
  tokens, channels = side * side, m.hidden_dim
  flat, turned = f"{tokens} x {channels}", f"{channels} x {tokens}"
  figure, (whole, block, detail) = sheet("MLP-Mixer: Mixer-B/16 at 224 x 224", 9.9)
  plain_network(whole, m, f"{tokens} patches", flat, last="LayerNorm")
  column(
    block,
    [
      ("norm", "LayerNorm", flat),
      ("frame", "transpose", turned),
      ("places", f"Dense {tokens} → {m.tokens_mlp_dim}, GELU", f"{channels} x {m.tokens_mlp_dim}"),
      ("places", f"Dense {m.tokens_mlp_dim} → {tokens}", turned),
      ("frame", "transpose", flat),
      "+",
      ("norm", "LayerNorm", flat),
      ("channels", f"Dense {channels} → {m.channels_mlp_dim}, GELU", f"{tokens} x {m.channels_mlp_dim}"),
      ("channels", f"Dense {m.channels_mlp_dim} → {channels}", flat),
      "+",
    ],
    f"a block: [patches, channels] {flat}",
  )
  kinds = (
    ("places", "token mixing: every channel,\nacross all patches", lambda row, column: column == 2),
    ("channels", "channel mixing: every patch,\nacross all channels", lambda row, column: row == 2),
  )
  for (place, text, is_seen), y in zip(kinds, (-1.2, -5.8), strict=True):
    note(detail, 2.58, y + 0.2, text)
    grid(detail, 0.9, y, (6, 8), 0.42, lambda r, c, seen=is_seen, fill=FILL[place]: fill if seen(r, c) else "white")
    note(detail, 2.58, y - 2.95, f"{channels} channels", soft=True)
    note(detail, 0.62, y - 1.26, f"{tokens} patches", soft=True, rotation=90, va="center")
  return figure


def _s2mlp():
  m = models.create("s2mlp_wide")
  side, channels, hidden = 224 // m.patch_size, m.hidden_dim, int(m.hidden_dim * m.mlp_ratio)
  offsets = shift.resolve_directions(m.directions)
  size = f"{side} x {side} x {channels}"
  figure, (whole, block, detail) = sheet("S²-MLP: S²-MLP-wide at 224 x 224", 9.0)
  plain_network(whole, m, f"{side} x {side} patches", size, first="LayerNorm")
  column(
    block,
    [
      ("channels", f"Dense {channels} → {channels}, GELU", size),
      ("places", f"spatial shift, {len(offsets)} groups of {channels // len(offsets)}", size),
      ("channels", f"Dense {channels} → {channels}", size),
      ("norm", "LayerNorm", size),
      "+",
      ("channels", f"Dense {channels} → {hidden}, GELU", f"{side} x {side} x {hidden}"),
      ("channels", f"Dense {hidden} → {channels}", size),
      ("norm", "LayerNorm", size),
      "+",
    ],
    f"a block: [rows, columns, channels] {size}",
  )
  # Where the value in the middle goes, by the shift itself.
  start = np.zeros((1, 5, 5, len(offsets)))
  start[0, 2, 2] = 1
  moved = np.asarray(shift.spatial_shift(start, m.directions, "zero"))[0]
  note(detail, 2.75, -0.35, "the shift: where the middle's value goes")
  for group, offset in enumerate(offsets):
    x, y = 0.45 + 2.6 * (group % 2), -1.6 - 3.4 * (group // 2)
    first = group * channels // len(offsets)
    text = f"channels {first} to {first + channels // len(offsets) - 1}\n(dy, dx) = {offset}"
    note(detail, x + 1.0, y + 0.12, text, soft=True)
    grid(detail, x, y, (5, 5), 0.4, lambda r, c, there=moved[..., group]: FILL["places"] if there[r, c] else "white")
    arrow(detail, (x + 1.0, y - 1.0), (x + 1.0 + 0.4 * offset[1], y - 1.0 - 0.4 * offset[0]))
  note(detail, 2.75, -8.0, "a border position that nothing reaches\nkeeps its own value", soft=True)
  return figure


def _asmlp():
  m = models.create("asmlp_tiny")
  side, channels, hidden = 224 // m.patch_size, m.hidden_dim, int(m.hidden_dim * m.mlp_ratio)
  size = f"{side} x {side} x {channels}"
  figure, (whole, block, detail) = sheet("AS-MLP: AS-MLP-T at 224 x 224", 11.3)
  steps = [("frame", "image", "224 x 224 x 3"), ("whole", f"patches of {m.patch_size}, Dense; GroupNorm", size)]
  for stage, depth in enumerate(m.depths):
    wide = f"{side >> stage} x {side >> stage} x {channels << stage}"
    if stage:
      steps.append(("frame", "merge 2 x 2: GroupNorm, Dense", wide))
    steps.append(("whole", f"stage {stage + 1}: {depth} blocks", wide))
  steps.append(("norm", "GroupNorm; mean over positions", f"{channels << stage}"))
  column(whole, [*steps, ("channels", f"Dense → {m.num_classes} classes", "")], "the network")
  column(
    block,
    [
      ("norm", "GroupNorm", size),
      ("channels", f"Dense {channels} → {channels}; GroupNorm, GELU", size),
      [("places", f"axial shift {m.shift_size}\nhorizontal"), ("places", f"axial shift {m.shift_size}\nvertical")],
      [("channels", f"Dense {channels}\nGELU"), ("channels", f"Dense {channels}\nGELU")],
      ("norm", "sum; GroupNorm", size),
      ("channels", f"Dense {channels} → {channels}", size),
      "+",
      ("norm", "GroupNorm", size),
      ("channels", f"Dense {channels} → {hidden}, GELU", f"{side} x {side} x {hidden}"),
      ("channels", f"Dense {hidden} → {channels}", size),
      "+",
    ],
    f"a block of stage 1: {size}",
  )
  # Which column each channel group's values come from, by the shift itself; 0 is padding.
  count, width = m.shift_size, 7
  numbers = np.tile(np.arange(1.0, width + 1)[None, None, :, None], (1, 1, 1, count))
  middle = width // 2
  found = np.asarray(shift.axial_shift(numbers, count, 2, m.padding, m.dilation))[0, 0].T.astype(int)
  note(detail, 2.75, -0.75, "the horizontal shift: which column\na value comes from")
  note(detail, 0.75, -1.5, "channels", soft=True)
  note(detail, 3.1, -1.5, f"columns 1 to {width} of a row", soft=True)
  group = -(-channels // count)
  for row in range(count):
    last = min((row + 1) * group, channels) - 1
    note(detail, 0.75, -1.85 - 0.5 * row, f"{row * group} to {last}", soft=True, va="center")
  seen = found[:, middle] - 1
  fill = {(row, column): "#DDDDDD" for row, column in np.argwhere(found == 0)}
  fill |= {(row, middle): FILL["places"] for row in range(count)}
  grid(detail, 1.35, -1.6, found.shape, 0.5, lambda r, c: fill.get((r, c), "white"), found)
  note(detail, 2.75, -4.95, "0 is padding; the vertical shift\ndoes the same with rows", soft=True)
  note(detail, 2.75, -6.2, "what the middle sees after one block")
  cross = {(middle, at) for at in seen} | {(at, middle) for at in seen}
  grid(detail, 1.35, -6.4, (width, width), 0.4, lambda r, c: FILL["places"] if (r, c) in cross else "white")
  return figure


FAMILIES = {"mixer": _mixer, "s2mlp": _s2mlp, "asmlp": _asmlp, **successors.FAMILIES}
