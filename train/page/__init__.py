"""The page that shows runs beside each other: curves, scores, and what they make of pictures."""
