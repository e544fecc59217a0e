"""Generated stubs of the protocol package `pannier.rag.v1`."""
