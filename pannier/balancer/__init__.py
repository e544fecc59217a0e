"""Generated stubs of the protocol package `pannier.balancer`."""
