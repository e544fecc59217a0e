"""The cache service: keeps embeddings, answers and chunks so that they are computed once.

Two levels: a local one in this process, bounded by bytes, and a shared one in Redis. `core` says
what keys, stored values and the breaker are; `look_up` and `keep` are the two things a caller can
do; `shared_level` decides whether Redis is asked at all.
"""
