"""From a pool of candidate links, or existing shards, to curated shards with a ledger."""
