"""What a client of pannier installs: generated stubs, client helpers and the `pannier` command."""

__all__ = ["__version__"]

__version__ = "0.1.0"
