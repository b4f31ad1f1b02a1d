"""Write a table as an Arrow file that takes its name when whole, and read it by memory map."""

from pathlib import Path

import pyarrow as pa

from .whole_file import replaced


def write_arrow(path: Path, table: pa.Table) -> None:
    """Write a table as an Arrow IPC file, under its final name only when complete."""
    with replaced(path) as file, pa.ipc.new_file(file, table.schema) as sink:
        sink.write_table(table)


def read_arrow(path: Path) -> pa.Table:
    """Read what ``write_arrow`` wrote; columns are read from disk when they are used."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()
