"""What a picture's Exif block says, as JSON."""

import io
import json
import logging

MOST_READS = 20_000
MOST_BYTES = 2**20
"""What exifread may read of one file: real blocks take some hundred reads, hostile ones hours."""


logging.getLogger("exifread").addHandler(logging.NullHandler())  # the JSON says what it found


def exif_json(body: bytes) -> str | None:
    """Return the tags as img2dataset writes them; None where the block cannot be read.

    Cost: about a millisecond.
    """
    import exifread

    try:
        tags = exifread.process_file(_Metered(body), details=False)
        return json.dumps({k: str(v).strip() for k, v in tags.items() if v is not None})
    except Exception:  # whatever a damaged block makes exifread raise: the column says null
        return None


class _Metered(io.BytesIO):
    """A file that stops being read when too much of it was."""

    reads = bytes_read = 0

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(size)
        self.reads += 1
        self.bytes_read += len(found)
        if self.reads > MOST_READS or self.bytes_read > MOST_BYTES:
            raise ValueError("more to read than any camera writes")
        return found
