"""From pixels to vectors: one module a stage, arrays in and out. No files, clock, settings or database.

image -> detection -> landmarks -> pose, quality, alignment -> embedding; tflite runs the networks.
"""

import os

# Read once by OpenCV when it is loaded, so before any stage imports it. The last line of defence behind the
# check of the declared size in `image`: without one, a PNG of 48 KB that declares 20,000 x 20,000 pixels takes
# 2.3 GB. 100 million is the most that `image.max_megapixels` can be set to.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(100_000_000))
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

import cv2

# One thread a call: the pool of interpreters already keeps every core busy, and OpenCV's own threads would fight it.
cv2.setNumThreads(1)
