"""Benchmarks: measured on demand with `make bench`, never asserted in tests."""

from pannier.polling import poll_without_event_engine

# As the documentation tells those who call from Python; before gRPC is imported.
poll_without_event_engine()
