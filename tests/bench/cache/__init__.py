"""Measures the cache: its speed on real Redis, and whether its semantic hits are right."""
