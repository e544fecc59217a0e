"""Generated stubs of the protocol package `pannier.cache.v1`."""
