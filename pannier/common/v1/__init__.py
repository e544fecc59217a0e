"""Generated stubs of the protocol package `pannier.common.v1`."""
