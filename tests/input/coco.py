"""Data in COCO's format: pictures of rectangles and ellipses, whose boxes and masks are known."""

import json

import cv2
import numpy as np
from PIL import Image

CATEGORIES = [{"id": 7, "name": "cup"}, {"id": 3, "name": "bowl"}, {"id": 90, "name": "spoon"}]  # ids with gaps
NAMES, IDS = ("bowl", "cup", "spoon"), (3, 7, 90)  # in the order of the ids
SIZES = [(60, 80), (80, 60), (64, 64), (50, 90), (90, 50), (60, 80)]  # (height, width)


def polygon(x, y, width, height):
  return [x, y, x + width, y, x + width, y + height, x, y + height]


def content(sizes=SIZES, crowd=True):
  """The content of an annotation file: images 100, 101, ..., of which the last one has no object.

  Image i has i % 3 + 1 objects, rectangles, the second of two parts of different widths. The first image has a crowd,
  too, as an RLE.
  """
  images, annotations = [], []
  for i, (height, width) in enumerate(sizes):
    images.append({"id": 100 + i, "file_name": f"picture {i}.png", "height": height, "width": width})
    for k in range(i % 3 + 1 if i < len(sizes) - 1 else 0):
      x, y, w, h = 5 + 16 * k, 8 + 4 * k, 15, 30.5
      parts = [polygon(x, y, w, h)] if k != 1 else [polygon(x, y, 6, 10), polygon(x, y + 15, w, h - 15)]
      area = w * h if k != 1 else 60 + w * (h - 15)
      annotations.append(
        {
          "id": 10 * i + k + 1,
          "image_id": 100 + i,
          "category_id": (7, 3, 90)[k],
          "bbox": [x, y, w, h],
          "area": area,
          "iscrowd": 0,
          "segmentation": parts,
        }
      )
  if crowd:
    height, width = sizes[0]
    counts = [10, 40, height * width - 50]
    annotations.append(
      {
        "id": 999,
        "image_id": 100,
        "category_id": 3,
        "bbox": [0, 10, 1, 40],
        "area": 40,
        "iscrowd": 1,
        "segmentation": {"size": [height, width], "counts": counts},
      }
    )
  return {"images": images, "annotations": annotations, "categories": [dict(c) for c in CATEGORIES]}


def picture(found, image_id):
  """uint8 [H, W, 3]: black, and the objects in colors of their classes; a crowd is not drawn."""
  entry = next(image for image in found["images"] if image["id"] == image_id)
  drawn = np.zeros((entry["height"], entry["width"], 3), np.uint8)
  for annotation in found["annotations"]:
    if annotation["image_id"] == image_id and isinstance(annotation["segmentation"], list):
      for part in annotation["segmentation"]:
        points = np.array(part).reshape(-1, 2)
        (x1, y1), (x2, y2) = points.min(0).astype(int), points.max(0).astype(int)
        cv2.rectangle(drawn, (int(x1), int(y1)), (int(x2) - 1, int(y2) - 1), COLORS[annotation["category_id"]], -1)
  return drawn


COLORS = {3: (250, 0, 0), 7: (0, 250, 0), 90: (0, 0, 250)}


def write(directory, found=None):
  """Writes DIRECTORY/images and DIRECTORY/annotations.json; returns the name of the dataset."""
  found = content() if found is None else found
  (directory / "images").mkdir(parents=True, exist_ok=True)
  for image in found["images"]:
    Image.fromarray(picture(found, image["id"])).save(directory / "images" / image["file_name"])
  (directory / "annotations.json").write_text(json.dumps(found))
  return f"coco:{directory / 'images'},{directory / 'annotations.json'}"
