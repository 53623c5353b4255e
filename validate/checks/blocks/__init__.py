"""Caches of blocks beside what engines and tools hit themselves on one public trace."""
