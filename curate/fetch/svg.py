"""Render SVG documents, which may neither run nor load anything."""

import base64
import io
import re
import xml.sax
from xml.sax.handler import ContentHandler
from xml.sax.saxutils import XMLGenerator
from xml.sax.xmlreader import AttributesImpl

from .refused import Refused
from .sniff import sniff

DEEPEST = 200
"""Elements inside each other; resvg's stack overflows at some thousands."""

MOST_PIXELS_INSIDE = 16_000_000
"""Of all pictures that a document holds in itself; resvg takes 4 bytes for each, and twice."""

_INSIDE = re.compile(r"\s*data:image/(?:png|jpe?g|gif|webp);base64,", re.IGNORECASE)


def render_svg(document: bytes, side_px: int) -> bytes:
    """Render an SVG document to PNG, its longer side ``side_px``; raises Refused.

    resvg runs no scripts, but it does open files that an image's href names: the document is
    written anew without such links. Text is set in the machine's fonts. Cost: about a
    millisecond, 25 where there is text.
    """
    import resvg_py

    text = _cleaned(document)
    try:
        png = resvg_py.svg_to_bytes(
            svg_string=text,
            width=side_px,
            height=side_px,
            dpi=96,  # CSS's; without it, sizes in pt, mm and cm are invalid to resvg_py
            skip_system_fonts=re.search(r"<(?:\w+:)?text\b", text) is None,
        )
    except ValueError as error:
        raise Refused("broken_picture", str(error)[:100]) from error
    except BaseException as error:  # a panic in Rust is no Exception
        if type(error).__name__ != "PanicException":
            raise
        raise Refused("broken_picture", "the renderer gave up on it") from error
    return bytes(png)


class _Cleaner(ContentHandler):
    """Passes a document on without the links that lead out of it."""

    def __init__(self, sink: XMLGenerator) -> None:
        super().__init__()
        self._sink = sink
        self._depth = 0
        self._pixels = 0

    def startElement(self, name: str, attrs: AttributesImpl) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise Refused("unsupported", f"an SVG of more than {DEEPEST} levels")
        kept = {key: value for key, value in attrs.items() if self._stays(key, value)}
        self._sink.startElement(name, AttributesImpl(kept))

    def _stays(self, name: str, value: str) -> bool:
        """Say whether an attribute leads nowhere but into the document itself."""
        if name.rpartition(":")[2].lower() not in ("href", "src", "base"):
            return True
        inside = _INSIDE.match(value)
        if inside is None:
            return value.lstrip().startswith("#")
        try:
            header = sniff(base64.b64decode("".join(value[inside.end() :].split())))
        except (Refused, ValueError):
            return False  # no picture: resvg would leave it out as well
        self._pixels += header.width * header.height
        if self._pixels > MOST_PIXELS_INSIDE:
            raise Refused("too_many_pixels", "an SVG with too large pictures inside")
        return header.kind != "svg"

    def endElement(self, name: str) -> None:
        self._depth -= 1
        self._sink.endElement(name)

    def characters(self, content: str) -> None:
        self._sink.characters(content)


def _cleaned(document: bytes) -> str:
    """Write a document anew with its entities filled in; expat stops at those that multiply."""
    written = io.StringIO()
    try:
        xml.sax.parse(io.BytesIO(document), _Cleaner(XMLGenerator(written)))
    except (xml.sax.SAXException, LookupError, ValueError) as error:
        raise Refused("broken_picture", _reason(error)) from error
    return written.getvalue()


def _reason(error: Exception) -> str:
    said = error.getMessage() if isinstance(error, xml.sax.SAXException) else str(error)
    return f"it is not XML: {said}"[:100]
