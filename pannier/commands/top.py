"""`pannier top`: backends, queues, caches, latency and cost, as they are now."""

import asyncio
import time
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.live import Live

from pannier.commands.connection import EXIT_UNREACHABLE, JsonOption, TenantOption, run
from pannier.commands.durations import seconds_within
from pannier.commands.keys import pressed_keys
from pannier.commands.output import Output
from pannier.commands.plain import to_plain
from pannier.commands.top_sources import Sources, ask_once, watching
from pannier.commands.top_state import SERVICES, TopState
from pannier.commands.top_view import SORTS, FrameOptions, frame_lines, styled

__all__ = ["Screen", "top"]

_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.1, 60.0


def top(
    *,
    once: Annotated[bool, typer.Option("--once", help="Show it once, and end.")] = False,
    interval: Annotated[
        float,
        typer.Option(
            parser=seconds_within(_SHORTEST_SECONDS, _LONGEST_SECONDS),
            metavar="DURATION",
            help="Time between two frames.",
        ),
    ] = "1s",  # type: ignore[assignment]  # read by the parser
    sort: Annotated[
        str, typer.Option(help=f"Order of backends: {', '.join(SORTS)}. Key: s.")
    ] = "name",
    tenant: TenantOption = "default",
    rag_address: Annotated[str, typer.Option(help="Address of rag, host:port.")] = "",
    cache_address: Annotated[str, typer.Option(help="Address of the cache.")] = "",
    balancer_address: Annotated[str, typer.Option(help="Address of the balancer.")] = "",
    address: Annotated[str, typer.Option(help="Address of all three, where it is one.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Show what all services do, again and again. q ends it, p pauses, s sorts the backends."""
    if sort not in SORTS:
        raise typer.BadParameter(f"must be one of {', '.join(SORTS)}", param_hint="--sort")
    sources = Sources(
        addresses={
            "rag": rag_address or address,
            "cache": cache_address or address,
            "balancer": balancer_address or address,
        },
        tenant=tenant,
        interval_seconds=interval,
    )

    async def main(output: Output) -> int:
        screen = Screen(output, TopState(), sort=sort, as_json=as_json)
        if once:
            await ask_once(sources, screen.state)
            screen.write()
            heard = any(each.stats is not None for each in screen.state.services.values())
            return 0 if heard else EXIT_UNREACHABLE
        async with watching(sources, screen.state):
            await screen.run(interval)
        return 0

    run(main)


@dataclass(slots=True)
class Screen:
    """Where frames are shown.

    Attributes:
        output: The terminal, or whatever stands in its place.
        state: What is known of the services.
        sort: Order of backends.
        as_json: Whether frames are JSON, one per line.
        paused: Whether the frame stands still.
        ended: Whether the user has had enough.
    """

    output: Output
    state: TopState
    sort: str = "name"
    as_json: bool = False
    paused: bool = False
    ended: bool = False

    def press(self, key: str) -> None:
        """Does what a key says; keys that say nothing are passed over."""
        if key in "qQ":
            self.ended = True
        elif key in "pP ":
            self.paused = not self.paused
        elif key in "sS":
            names = list(SORTS)
            self.sort = names[(names.index(self.sort) + 1) % len(names)]

    def write(self) -> None:
        """Writes a frame as plain lines, or as JSON."""
        if self.as_json:
            self.output.json_line(self._document())
            return
        for line in self._lines(height=0, keys=False):
            self.output.line(line)

    async def run(self, interval_seconds: float) -> None:
        """Shows frames until the user has had enough; on anything but a terminal, for ever."""
        console = self.output.console
        if self.as_json or not console.is_terminal or console.is_dumb_terminal:
            while True:
                await asyncio.sleep(interval_seconds)
                self.write()
                if not self.as_json:
                    self.output.line()
        woken = asyncio.Event()

        def press(key: str) -> None:
            self.press(key)
            woken.set()

        with (
            pressed_keys(press) as keys,
            Live(console=console, screen=True, auto_refresh=False) as live,
        ):
            frozen: list[str] = []
            while not self.ended:
                lines = self._lines(height=console.height, keys=keys)
                if self.paused and frozen:
                    # Everything stands still but the line that says so.
                    lines = [lines[0], *frozen[1:]]
                frozen = lines
                live.update(styled(lines), refresh=True)
                woken.clear()
                try:
                    async with asyncio.timeout(interval_seconds):
                        await woken.wait()
                except TimeoutError:
                    continue

    def _lines(self, *, height: int, keys: bool) -> list[str]:
        options = FrameOptions(
            width=self.output.console.width,
            height=height,
            sort=self.sort,
            paused=self.paused,
            now=time.monotonic(),
            clock=time.time(),
            keys=keys,
        )
        return frame_lines(self.state, options)

    def _document(self) -> dict[str, Any]:
        usage = self.state.usage
        seen = self.state.services
        return {
            **{
                name: None if seen[name].stats is None else to_plain(seen[name].stats)
                for name in SERVICES
            },
            "away": {name: seen[name].problem for name in SERVICES if seen[name].problem},
            "usage": None if usage is None else to_plain(usage.total),
        }
