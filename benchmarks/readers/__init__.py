"""One file per loader that is compared; ``run`` runs each in that loader's own environment."""
