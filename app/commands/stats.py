"""`python -m app stats`: what a running service counts, once or as it changes."""

import asyncio
import contextlib
import os
import signal
import sys
from typing import Final, TextIO

import click

from app.client.patience import Patience
from app.client.service import Service
from app.client.values import ClientError, Figures, Refused, Statistics
from app.client.wire import AddressError

_EXIT_OK: Final = 0
_EXIT_FAILURE: Final = 1

_UP_AND_CLEAR: Final = "\x1b[{}F\x1b[J"
_HEADINGS: Final = ("", "count", "sum", "avg", "min", "max")
_CELL_CHARS: Final = 16
_CODE_CHARS: Final = 12
_ANSWER_SECONDS: Final = 5.0


@click.command(
    short_help="Show what a running service counts.",
    epilog="""\b
Examples:
  python -m app stats --window 10s --currency EUR
  python -m app stats --watch --url https://millrace.example --token-file token""",
)
@click.option(
    "--url", default="http://127.0.0.1:8000", show_default=True, help="Where the service listens."
)
@click.option("--watch", is_flag=True, help="Go on until interrupted.")
@click.option("--window", default="", help="A part of the window: 250ms, 10s, 1m.")
@click.option("--currency", default="", help="One currency alone.")
@click.option(
    "--interval",
    "interval_seconds",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    help="With --watch: seconds between two looks.",
)
@click.option(
    "--token-file", type=click.File(), help="A file with a token in it; else TOKEN is, where it is set."
)
def stats(
    url: str,
    watch: bool,
    window: str,
    currency: str,
    interval_seconds: float,
    token_file: TextIO | None,
) -> int:
    """Show the statistics of a running service, once or, with --watch, as they change.

    A terminal is redrawn in place; a pipe or a file has one line for each look. No settings are read.
    Exit status: 0, also where a watch was interrupted, and 1 where there is no answer.
    """
    token = (token_file.read() if token_file is not None else os.environ.get("TOKEN", "")).strip()
    try:
        return asyncio.run(_show(url, token, window, currency, interval_seconds if watch else None))
    except AddressError as error:
        raise click.BadParameter(str(error), param_hint="--url") from None
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except BrokenPipeError:
        # Whoever read it has seen enough. What is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_OK


async def _show(url: str, token: str, window: str, currency: str, interval_seconds: float | None) -> int:
    # Whoever looks again anyway need not try again.
    patience = Patience(attempts_max=1 if interval_seconds is not None else 3)
    async with Service(
        url, token=token, connections_max=1, answer_seconds=_ANSWER_SECONDS, patience=patience
    ) as service:
        if interval_seconds is None:
            try:
                told = await service.statistics(window=window, currency=currency)
            except ClientError as error:
                sys.stderr.write(f"millrace: {url}: {error}\n")
                return _EXIT_FAILURE
            click.echo("\n".join(_table(url, told)))
            return _EXIT_OK
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopped.set)
        view = View(url, is_terminal=sys.stdout.isatty())
        watching = loop.create_task(_watch(service, view, window, currency, interval_seconds))
        interrupted = loop.create_task(stopped.wait())
        await asyncio.wait((watching, interrupted), return_when=asyncio.FIRST_COMPLETED)
        for task in (watching, interrupted):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            return await watching
        return _EXIT_OK


async def _watch(
    service: Service, view: "View", window: str, currency: str, interval_seconds: float
) -> int:
    """Look again and again; an exit status where there is no sense in going on."""
    loop = asyncio.get_running_loop()
    looks_at = loop.time()
    while True:
        try:
            view.show(await service.statistics(window=window, currency=currency))
        except Refused as error:
            if error.status < 500 and error.status != 429:
                # The question is wrong, or its token, and will be.
                sys.stderr.write(f"millrace: {error}\n")
                return _EXIT_FAILURE
            view.show_trouble(error)
        except ClientError as error:
            view.show_trouble(error)
        looks_at = max(looks_at + interval_seconds, loop.time())
        await asyncio.sleep(looks_at - loop.time())


class View:
    """What has been told, on a terminal in the place where it was told before."""

    def __init__(self, url: str, *, is_terminal: bool) -> None:
        self._url = url
        self._is_terminal = is_terminal
        self._told: Statistics | None = None
        self._lines = 0
        self._is_gone = False

    def show(self, told: Statistics) -> None:
        """Show figures."""
        self._told = told
        is_back, self._is_gone = self._is_gone, False
        if self._is_terminal:
            self._redraw([*_table(self._url, told), "the service is back" * is_back])
        else:
            if is_back:
                self._write("the service is back\n")
            self._write(_line(told) + "\n")

    def show_trouble(self, error: ClientError) -> None:
        """Say why there are none; those of before stay where they are."""
        is_first, self._is_gone = not self._is_gone, True
        text = f"no answer: {error}"
        if self._is_terminal:
            table = _table(self._url, self._told) if self._told is not None else [self._url]
            self._redraw([*table, text])
        elif is_first:
            self._write(text + "\n")

    def _redraw(self, lines: list[str]) -> None:
        # One write, so that nothing flickers.
        above = _UP_AND_CLEAR.format(self._lines) if self._lines else ""
        width = _columns()
        self._write(above + "".join(f"{line[:width]}\n" for line in lines))
        self._lines = len(lines)

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _columns() -> int:
    """A longer line would take two, and be redrawn as one."""
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    return 80


def _table(url: str, told: Statistics) -> list[str]:
    nodes = f", {told.nodes} nodes" if told.nodes is not None else ""
    degraded = ", degraded" if told.degraded else ""
    head = f"{url}, the last {told.window_seconds} s as of {_instant(told)}{nodes}{degraded}"
    rows = [("all", told), *told.by_currency.items()]
    return [head, _row(_HEADINGS), *(_row((name, *_cells(figures))) for name, figures in rows)]


def _line(told: Statistics) -> str:
    currencies = [("all", told), *told.by_currency.items()]
    parts = (
        f"{name} " + " ".join(map("=".join, zip(_HEADINGS[1:], _cells(figures), strict=True)))
        for name, figures in currencies
    )
    return "  ".join((_instant(told), *parts))


def _instant(told: Statistics) -> str:
    return told.as_of.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _row(cells: tuple[str, ...]) -> str:
    return cells[0].ljust(_CODE_CHARS) + "".join(f" {cell:>{_CELL_CHARS}}" for cell in cells[1:])


def _cells(figures: Figures) -> tuple[str, ...]:
    amounts = (figures.sum, figures.avg, figures.min, figures.max)
    return (str(figures.count), *(f"{amount:f}" for amount in amounts))
