"""Servers of blocks: requests per second, and events that must be what they were."""
