"""The fastest loader in tf.data: decoding fused with the crop, without antialiasing and RandAugment."""

from collections.abc import Iterator, Mapping, Sequence
import os
import pathlib
from typing import Any

import numpy as np


def batches(config: Mapping[str, Any], paths: Sequence[str]) -> Iterator[np.ndarray]:
  """Batches of JPEG files, which are first written into one TFRecord in their directory; config is a dict."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  import tensorflow as tf

  record = os.path.join(os.path.dirname(paths[0]), "images.tfrecord")
  with tf.io.TFRecordWriter(record) as writer:
    for path in paths:
      writer.write(pathlib.Path(path).read_bytes())
  augment, size = config["augment"], config["data"]["image_size"]

  def load(data):
    begin, extent, _ = tf.image.sample_distorted_bounding_box(
      tf.image.extract_jpeg_shape(data),
      tf.zeros([0, 0, 4]),
      area_range=augment["crop_scale"],
      aspect_ratio_range=augment["crop_ratio"],
      min_object_covered=0,
      use_image_if_no_bounding_boxes=True,
    )
    window = tf.stack([begin[0], begin[1], extent[0], extent[1]])
    image = tf.image.resize(tf.image.decode_and_crop_jpeg(data, window, channels=3), [size, size])
    flipped = tf.cond(tf.random.uniform([]) < augment["flip"], lambda: image[:, ::-1], lambda: image)
    return tf.cast(flipped, tf.uint8)

  dataset = tf.data.TFRecordDataset(record).repeat().shuffle(256)
  dataset = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
  yield from dataset.batch(config["data"]["batch_size"], drop_remainder=True).prefetch(2).as_numpy_iterator()
