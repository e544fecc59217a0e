"""Benchmarks: measured on demand with `make bench`, never asserted in tests."""
