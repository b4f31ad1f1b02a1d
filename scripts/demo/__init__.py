"""The demo: a pool with planted defects, served from loopback, and the check of what was found."""
