"""Plain tars: the bytes are those of Python's own tarfile, written faster."""

import io
import tarfile
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breadth.curate import ustar
from breadth.curate.ustar import TarWriter, header
from breadth.loaders.errors import ShardError

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=25)


@given(NAMES, st.integers(0, 8**11 - 1))
def test_a_header_is_tarfiles(name: str, size: int) -> None:
    """For every name and size that fits, the 512 bytes are those that tarfile writes."""
    info = tarfile.TarInfo(name)
    info.size = size
    assert header(name, size) == info.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize(("name", "size"), [("n" * 101, 1), ("n", 8**11), ("雪" * 34, 1)])
def test_what_does_not_fit_a_header_is_refused(name: str, size: int) -> None:
    """A name of more than 100 bytes or a member of 8 GiB is an error, never a damaged tar."""
    with pytest.raises(ShardError, match="does not fit"):
        header(name, size)


@given(st.lists(st.binary(max_size=1500), max_size=8), st.integers(1, 4000))
def test_a_tar_is_read_back_wherever_it_was_flushed(bodies: list[bytes], flush: int) -> None:
    """Members lie where ``add`` says, tarfile finds them all, and size and hash are the file's."""
    sink = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ustar, "FLUSH_BYTES", flush)
        writer = TarWriter(sink)
        offsets = [writer.add(f"{number}.jpg", body) for number, body in enumerate(bodies)]
        digest = writer.finish()
    written = sink.getvalue()
    assert (len(written), sha256(written).hexdigest()) == (writer.size, digest)
    for offset, body in zip(offsets, bodies, strict=True):
        assert written[offset : offset + len(body)] == body
    with tarfile.open(fileobj=io.BytesIO(written)) as tar:
        assert [tar.extractfile(member).read() for member in tar] == bodies
