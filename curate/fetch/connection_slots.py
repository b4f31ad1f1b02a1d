"""Connection slots that processes share, as byte locks which the kernel frees when one dies."""

import os
from pathlib import Path

from .shared_records import lock_byte, open_shared, unlock_byte

PROBE = 65_535  # the byte that who probes a host holds; those before are slots
_SHARDS = 16  # files: the kernel walks all locks of one at each call


class ConnectionSlots:
    """At most ``count`` slots a key, over all instances that share the folder.

    The files stay empty: a lock needs no byte under it, so every key has 65,536 of its own.
    Within one instance a lock can be taken twice, so it remembers what it holds. A forked
    child keeps its parent's locks alive; an exec closes them. One instance a thread.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self._count = min(count, PROBE)  # no machine has more ports
        self._files = [open_shared(folder / f"slots-{n:02d}") for n in range(_SHARDS)]
        self._held: dict[int, list[int]] = {}
        self._probed: set[int] = set()
        self._first = os.getpid()  # where this one begins to look: others begin elsewhere

    def held(self, key: int) -> int:
        """Return how many slots of a key this instance holds."""
        return len(self._held.get(key, ()))

    def take(self, key: int) -> bool:
        """Take a free slot of a key; False if there is none. Cost: 1 us a slot looked at."""
        held = self._held.setdefault(key, [])
        for step in range(self._count):
            slot = (self._first + step) % self._count
            if slot not in held and self._lock(key, slot):
                held.append(slot)
                return True
        if not held:
            del self._held[key]
        return False

    def free(self, key: int) -> None:
        """Free the slot of a key that was taken last."""
        held = self._held[key]
        unlock_byte(self._files[key % _SHARDS], _offset(key, held.pop()))
        if not held:
            del self._held[key]

    def take_probe(self, key: int) -> bool:
        """Become the one who probes a host; False if somebody else, or this one, does so."""
        if key in self._probed or not self._lock(key, PROBE):
            return False
        self._probed.add(key)
        return True

    def free_probe(self, key: int) -> None:
        """Stop to probe a host, which take_probe() began."""
        self._probed.remove(key)
        unlock_byte(self._files[key % _SHARDS], _offset(key, PROBE))

    def close(self) -> None:
        """Close the files, which frees all that is held."""
        for file in self._files:
            os.close(file)

    def _lock(self, key: int, slot: int) -> bool:
        return lock_byte(self._files[key % _SHARDS], _offset(key, slot))


def _offset(key: int, slot: int) -> int:
    return ((key >> 18) << 16) | slot  # 46 bits of the key: a file has 2**63 bytes
