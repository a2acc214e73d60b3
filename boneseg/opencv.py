"""OpenCV, set up: the only place that imports it, so that nobody uses it before its own threads are off.

Batches are made by threads of ours and series by processes of ours; OpenCV's threads would only fight with them.
"""

import cv2

cv2.setNumThreads(0)

__all__ = ["cv2"]
