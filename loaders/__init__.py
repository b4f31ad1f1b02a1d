"""From shards to batches: any folder of WebDataset tars, in an order that is a pure function."""
