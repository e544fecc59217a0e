"""The embedded stack: everything pannier needs, started and stopped on one machine by one command.

`stack` decides what is to run, `supervisor` runs it, `state` remembers it between commands.
"""
