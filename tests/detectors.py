"""Small detectors, and a small dataset in COCO's format, for tests."""

import json

import cv2
import numpy as np

from configs import quickstart_detection

_MODEL = dict(backbone="s2mlp_wide", hidden_dim=16, num_blocks=1, patch_size=16, channels=8, head_dim=16)
_MODEL |= dict(pre_nms=(20, 20), train_proposals=12, test_proposals=12, detections=6, rpn_samples=16, roi_samples=16)
_SHAPES = [(48, 64), (64, 48), (40, 60), (60, 40)]


def write_rectangles(root):
  """Sixteen pictures of colored rectangles, half of them wide; returns their name for config.data.name."""
  rng = np.random.default_rng(0)
  (root / "images").mkdir()
  images, annotations = [], []
  for i in range(16):
    height, width = _SHAPES[i % 4]
    picture = rng.integers(0, 60, (height, width, 3), np.uint8)
    for _ in range(1 + i % 3):
      (y, x), (h, w), category = (
        rng.integers(0, (height // 2, width // 2)),
        rng.integers(12, 24, 2),
        int(rng.integers(2)),
      )
      picture[y : y + h, x : x + w] = (0, 90, 255) if category else (200, 255, 0)
      h, w = min(h, height - y), min(w, width - x)
      polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
      box, area = [int(n) for n in (x, y, w, h)], int(w * h)
      annotation = {"id": len(annotations) + 1, "image_id": i, "category_id": (3, 7)[category], "iscrowd": 0}
      annotations.append({**annotation, "bbox": box, "area": area, "segmentation": [[int(n) for n in polygon]]})
    cv2.imwrite(str(root / "images" / f"{i}.png"), picture)
    images.append({"id": i, "file_name": f"{i}.png", "height": height, "width": width})
  categories = [{"id": 3, "name": "green"}, {"id": 7, "name": "orange"}]
  found = {"images": images, "annotations": annotations, "categories": categories}
  (root / "objects.json").write_text(json.dumps(found))
  return f"coco:{root}/images,{root}/objects.json"


def config(name, **options):
  """Of a Mask R-CNN on S2-MLP, which compiles faster than AS-MLP, on two canvases."""
  found = quickstart_detection.get_config()
  del found.model.depths
  found.model.update(_MODEL | options)
  found.data.update(
    name=name, eval_split="train", canvas=(64, 96), scale=(96, 64), batch_size=8, max_objects=4, workers=0
  )
  found.augment.update(
    flip=0.5, short_sides=(56, 64), crop_probability=0.5, crop_short_sides=(48,), crop_sides=(32, 48)
  )
  del found.optim.kwargs.adam_learning_rate
  found.optim.update(name="sgd", learning_rate=1e-2)
  found.optim.schedule.warmup = "1 step"
  found.update(duration="4 steps", log_every="1 step")
  found.eval.update(every="4 steps", batch_size=8)
  found.checkpoint.update(every="1 step", keep=9)
  return found
