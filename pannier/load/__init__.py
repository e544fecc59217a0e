"""Traffic to order: when questions arrive, what is asked, what came of it, and what is to go wrong.

Nothing here reads a clock, calls a service or writes to a terminal; `pannier load` does.
"""
