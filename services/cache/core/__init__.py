"""What the cache service decides, without any I/O: keys, frames, breaker, local level, tallies."""
