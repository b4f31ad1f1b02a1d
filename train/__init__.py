"""A compact trainer for the MAE-CLIP family: views x terms."""
