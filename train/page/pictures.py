"""Choose pairs of a folder to look at, and make PNGs of pictures and of heat over them."""

from base64 import b64encode
from dataclasses import dataclass, field
from hashlib import blake2b

import cv2
import numpy as np

from breadth.loaders.decode import DecodeError, decode
from breadth.loaders.errors import PoolError
from breadth.loaders.folder import Folder

PAIRS = 6
SHOWN_PX = 128  # larger pictures are shrunk: a page of six pairs and four runs stays small
_HEAT_PX = 96  # smaller ones are enlarged before heat is drawn on them


@dataclass(frozen=True)
class ShownPair:
    """A pair that the page shows; its picture as it lies in the folder."""

    uid: str
    caption: str
    encoded: bytes = field(repr=False)


def draw_shown(folder: Folder) -> list[ShownPair]:
    """Draw PAIRS pairs by hash of their uid, of those whose picture can be decoded.

    Raises PoolError where none can.
    """
    ranked = sorted((blake2b(uid.encode()).digest(), row) for row, uid in enumerate(folder.uids))
    shown: list[ShownPair] = []
    for _, row in ranked:
        if len(shown) == PAIRS:
            break
        encoded = folder.image(row)
        try:
            decode(encoded, _HEAT_PX)
        except DecodeError:
            continue
        shown.append(ShownPair(folder.uids[row], folder.caption(row), encoded))
    if not shown:
        raise PoolError("the data folder holds no picture that can be decoded")
    return shown


def pictures(shown: list[ShownPair], px: int) -> np.ndarray:
    """Decode pairs at a run's size: uint8 [n, 3, px, px]."""
    decoded = np.stack([decode(pair.encoded, px) for pair in shown])
    return np.ascontiguousarray(decoded.transpose(0, 3, 1, 2))


def png(picture_HWC: np.ndarray) -> str:
    """Return a picture, uint8 [H, W, 3] in RGB, as a data URL; equal pixels up to SHOWN_PX."""
    side = picture_HWC.shape[0]
    if side > SHOWN_PX:
        picture_HWC = cv2.resize(picture_HWC, (SHOWN_PX, SHOWN_PX), interpolation=cv2.INTER_AREA)
    body = cv2.imencode(".png", picture_HWC[..., ::-1])[1].tobytes()
    return "data:image/png;base64," + b64encode(body).decode()


def heat_png(picture_HWC: np.ndarray, heat_SS: np.ndarray) -> str:
    """Draw a map over a grey picture, dark to bright from its coldest to its hottest token.

    The hottest token is framed, so that it is found without colours.
    """
    side = picture_HWC.shape[0]
    side *= max(1, -(-_HEAT_PX // side))
    grey = cv2.cvtColor(picture_HWC, cv2.COLOR_RGB2GRAY)
    grey_HW1 = cv2.resize(grey, (side, side), interpolation=cv2.INTER_NEAREST)[..., None]
    reach = float(heat_SS.max() - heat_SS.min())
    level_SS = (heat_SS - heat_SS.min()) / (reach or 1.0)
    level_HW = cv2.resize(level_SS, (side, side), interpolation=cv2.INTER_NEAREST)
    glow = cv2.applyColorMap((level_HW * 255).round().astype(np.uint8), cv2.COLORMAP_INFERNO)
    mixed = ((grey_HW1.astype(np.float32) + glow[..., ::-1]) / 2).round().astype(np.uint8)
    return png(_framed(mixed, heat_SS) if reach else mixed)


def _framed(picture_HWC: np.ndarray, heat_SS: np.ndarray) -> np.ndarray:
    """Frame the hottest token in white within black."""
    token = picture_HWC.shape[0] // len(heat_SS)
    row, column = divmod(int(heat_SS.argmax()), len(heat_SS))
    corner, far = (column * token, row * token), ((column + 1) * token - 1, (row + 1) * token - 1)
    framed = np.ascontiguousarray(picture_HWC)
    cv2.rectangle(framed, corner, far, (0, 0, 0), 3)
    cv2.rectangle(framed, corner, far, (255, 255, 255), 1)
    return framed
