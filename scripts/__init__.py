"""The ``breadth`` command: one thin file per verb."""
