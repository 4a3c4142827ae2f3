"""Structured logs: one JSON object a line on standard output, the libraries' own included."""

import logging
import sys

import structlog

from app.settings import LogLevel


def configure_logs(level: LogLevel) -> None:
    """Set up logging for the whole process."""
    severity = logging.getLevelNamesMapping()[level.name]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.dict_tracebacks,
    ]
    # Escapes whatever is not ASCII, so that no field can break a line or a terminal.
    renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(severity),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stdout),
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(severity, logging.WARNING), force=True)
