"""A simulator in virtual time: the service's own planner beside simpler rules, on the same traces.

It explores; what is claimed of pannier is measured on real processes by `tests.bench.balancer`.
"""
