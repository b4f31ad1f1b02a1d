"""A run's weights in the layouts of other projects, and theirs as a run."""
