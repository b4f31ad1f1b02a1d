"""Print a build's funnel: how many pairs entered each stage, stayed, and why others left."""

from rich.console import Console
from rich.table import Table

from breadth.loaders.manifest import Manifest


def show_funnel(manifest: Manifest, reasons: int = 4) -> None:
    """Print one line a stage with its most frequent drop reasons."""
    table = Table(
        title=f"funnel of {manifest.name}", title_justify="left", box=None, pad_edge=False
    )
    for name in ("stage", "in", "kept", "dropped"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    table.add_column("why", overflow="fold")
    for entry in manifest.funnel:
        dropped = entry["in"] - entry["kept"]
        most = sorted(entry["dropped"].items(), key=lambda item: -item[1])  # JSON sorts by name
        why = [f"{n:,} {reason}" for reason, n in most[:reasons]]
        more = len(entry["dropped"]) - reasons
        why += [f"and {more} other reasons"] if more > 0 else []
        table.add_row(
            entry["stage"], f"{entry['in']:,}", f"{entry['kept']:,}", f"{dropped:,}", "; ".join(why)
        )
    Console().print(table)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 shard, 2 shards."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
