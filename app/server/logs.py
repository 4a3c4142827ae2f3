"""Structured logs: one JSON object a line on standard output, the libraries' own included."""

import contextlib
import io
import logging
import os

import structlog
from structlog.tracebacks import ExceptionDictTransformer

from app.settings import LogLevel

_STANDARD_OUTPUT = 1


class _Output(io.StringIO):
    """Standard output, unbuffered. A reader that has gone or a full disk costs lines, not answers."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            os.write(_STANDARD_OUTPUT, text.encode())
        return len(text)


def configure_logs(level: LogLevel) -> None:
    """Set up logging for the whole process."""
    severity = logging.getLevelNamesMapping()[level.name]
    output = _Output()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        # Without the values of variables: they hold what clients have sent.
        structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
    ]
    # Escapes whatever is not ASCII, so that no field can break a line or a terminal.
    renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(severity),
        logger_factory=structlog.WriteLoggerFactory(file=output),
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(severity, logging.WARNING), force=True)
