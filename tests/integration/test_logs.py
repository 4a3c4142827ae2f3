"""What is logged stays what it is: one event, one line, whatever its fields hold."""

import json
import subprocess
import sys

import pytest

_LOG = """
import sys, logging, structlog
from app.server.logs import configure_logs
from app.settings import LogLevel
configure_logs(LogLevel.INFO)
value = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
structlog.get_logger().info(value, field=value, **{"k" + value: 1})
logging.getLogger("library").error("%s", value)
try:
    raise ValueError(value)
except ValueError:
    structlog.get_logger().exception("failed")
"""


@pytest.mark.parametrize(
    "value",
    [
        "a\r\nb",
        '{"event":"forged"}\n{"event":"forged"}',
        "\x1b[2J\x1b[31m",
        "\u2028\u2029\x85",
        "\x00",
        "\\\n",
    ],
)
def test_no_field_can_break_a_line_or_a_terminal(value: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", _LOG], input=value.encode(), capture_output=True, timeout=30, check=True
    ).stdout
    assert told.endswith(b"\n")
    lines = told[:-1].split(b"\n")
    assert [json.loads(line)["event"] for line in lines] == [value, value, "failed"]
    assert all(32 <= byte < 127 for line in lines for byte in line)
