"""The servers of pannier.

`balancer`, `cache` and `rag` are independent of each other and of the stand-in fleet `standin`.
They share the generated stubs in `pannier` and the small library `services.common`. In each, `core`
is pure, adapters are reached by the composition root `app` alone, and `__main__` only reads
settings and starts `app`.
"""
