"""How charts look: one palette in two lights, axes that name their units, SVG that stands in a page.

Charts are drawn in the colours of the light page. In SVG each of them becomes a variable of the
page's style sheet, which has a value for either light; a PNG keeps the light ones.
"""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

_DECADES: Final = 7
_PLASMA: Final = mpl.colormaps["plasma"]


class Palette:
    """Colours by name, each for light and for dark."""

    ink: Final = "#1f2328"
    quiet: Final = "#59636e"
    rule: Final = "#d1d9e0"
    page: Final = "#ffffff"
    blue: Final = "#0969da"
    orange: Final = "#bc4c00"
    green: Final = "#1a7f37"
    purple: Final = "#8250df"
    # From dark to bright on white, from bright to brighter on black: either keeps off its ground.
    decades: Final = tuple(to_hex(_PLASMA(0.75 * step / (_DECADES - 1))) for step in range(_DECADES))

    dark: Final = {
        ink: "#e6edf3",
        quiet: "#9198a1",
        rule: "#3d444d",
        page: "#0d1117",
        blue: "#58a6ff",
        orange: "#f0883e",
        green: "#3fb950",
        purple: "#bc8cff",
        **{
            colour: to_hex(_PLASMA(0.35 + 0.65 * step / (_DECADES - 1)))
            for step, colour in enumerate(decades)
        },
    }


def decade_colour(place: int) -> str:
    """The colour of the N at that place, smallest first."""
    return Palette.decades[place % _DECADES]


def style_sheet() -> str:
    """The palette as variables, in both lights."""
    light = "".join(f"{_variable(colour)}:{colour};" for colour in Palette.dark)
    dark = "".join(f"{_variable(light)}:{dark};" for light, dark in Palette.dark.items())
    return f":root{{{light}}}\n@media (prefers-color-scheme: dark){{:root{{{dark}}}}}"


def _variable(colour: str) -> str:
    names = {value: name for name, value in vars(Palette).items() if isinstance(value, str)}
    return f"--{names[colour] if colour in names else f'decade-{Palette.decades.index(colour)}'}"


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save inside of this."""
    with mpl.rc_context(
        {
            "font.family": "DejaVu Sans",
            "font.size": 10,
            "text.color": Palette.ink,
            "text.parse_math": False,
            "axes.labelcolor": Palette.quiet,
            "axes.edgecolor": Palette.quiet,
            "axes.facecolor": "none",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.titlesize": 11,
            "axes.titlelocation": "left",
            "grid.color": Palette.rule,
            "grid.linewidth": 0.7,
            "xtick.color": Palette.quiet,
            "ytick.color": Palette.quiet,
            "legend.frameon": False,
            "legend.fontsize": 9,
            "lines.linewidth": 1.7,
            "errorbar.capsize": 3,
            # Text stays text: small, selectable, and read aloud.
            "svg.fonttype": "none",
            # The same figures are the same bytes.
            "svg.hashsalt": "millrace",
        }
    ):
        yield


def figure(width: float, height: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty chart, in inches at 96 pixels, with panels side by side."""
    drawn = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    axes = drawn.subplots(1, panels, squeeze=False)
    return drawn, list(axes[0])


def svg(drawn: Figure, name: str) -> str:
    """The chart as an element of a page; `name` keeps its ids apart from those of other charts."""
    stream = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    drawn.savefig(stream, format="svg", metadata=nothing)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    for colour in Palette.dark:
        text = text.replace(colour, f"var({_variable(colour)})")
    return text


def save_png(drawn: Figure, path: Path) -> None:
    """The chart as a picture on white."""
    drawn.savefig(path, format="png", dpi=150, facecolor=Palette.page)


def power(number: float, _: object = None) -> str:
    """A power of ten, written as such above ten."""
    exponent = len(str(round(number))) - 1
    digits = str(exponent).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{digits}" if exponent > 1 else str(round(number))


def count_axis(axes: Axes, numbers: Sequence[int]) -> None:
    """The axis of N."""
    axes.set_xscale("log")
    axes.set_xticks(list(numbers))
    axes.xaxis.set_major_formatter(FuncFormatter(power))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("N, transactions in the window")


def time_axis(
    axes: Axes, along: str, unit: Callable[[float], str], steps: Sequence[float] = (1,)
) -> None:
    """A logarithmic axis of time whose ticks carry their unit."""
    axis = axes.xaxis if along == "x" else axes.yaxis
    (axes.set_xscale if along == "x" else axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(base=10, subs=steps, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: unit(value)))
    axis.set_minor_formatter(FuncFormatter(lambda *_: ""))


def microseconds(value: float) -> str:
    """A span in microseconds, in the unit that keeps it short."""
    for size, unit in ((1e6, "s"), (1e3, "ms"), (1, "µs")):
        if value >= size * 0.999:
            return f"{value / size:g} {unit}"
    return f"{value * 1e3:g} ns"


def milliseconds(value: float) -> str:
    """A span in milliseconds, in the unit that keeps it short."""
    return microseconds(value * 1000)


def legend_above(axes: Axes, columns: int) -> None:
    """A legend between title and plot, where no curve runs."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=columns,
        borderaxespad=0.2,
        handlelength=2.4,
        columnspacing=1.4,
    )
