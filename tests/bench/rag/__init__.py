"""Measures rag: quality, speed, memory, and LanceDB beside it."""
