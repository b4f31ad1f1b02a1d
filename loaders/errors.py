"""What can go wrong, and who has to act."""


class BreadthError(Exception):
    """Something a person must act on; the message is one line that says what to do."""

    exit_status = 1


class Refused(BreadthError):
    """The request is wrong; nothing was done. Correct it and ask again."""

    exit_status = 2


class RecipeError(Refused):
    """A recipe names a stage, option or column that does not exist."""


class PoolError(Refused):
    """A pool or data folder cannot be read as one."""


class OutputError(Refused):
    """The output folder is in use, or belongs to another build or run."""


class ShardError(BreadthError):
    """A shard is damaged, or is not what its manifest says."""

    exit_status = 2


class Failed(BreadthError):
    """Something failed on the way; what is done is kept and the same command continues."""

    exit_status = 1
