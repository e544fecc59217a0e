"""How the cache service reaches the outside: Redis."""
