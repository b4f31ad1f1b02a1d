"""One file per comparison: a peer and ours on the same work, in turn, several rounds."""
