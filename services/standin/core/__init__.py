"""The stand-in's computation: no network, clock or asyncio."""
