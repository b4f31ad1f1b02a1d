"""Studies: many runs, one question, compared in pairs."""
