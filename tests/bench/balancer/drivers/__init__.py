"""Clients of the contenders: what an application would use to talk to each."""
