"""What a worker's tasks need: imported once, by the process that all workers are forked from."""

import gc

from . import barrier, ledger, leg_task, materialise, thumbs
from .fetch import part
from .without_pandas import keep_pandas_out

__all__ = ["barrier", "ledger", "leg_task", "materialise", "part", "thumbs"]

keep_pandas_out()
gc.freeze()  # a worker's collector leaves these objects alone, and so their pages shared
