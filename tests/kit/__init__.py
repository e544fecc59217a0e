"""Shared by tests: embedded servers, fakes and clocks."""
