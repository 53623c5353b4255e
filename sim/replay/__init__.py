"""What can be said about eviction from the order of accesses alone, without a server: fast replays and an upper bound."""
