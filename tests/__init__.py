"""Every test states a behaviour in one sentence."""
