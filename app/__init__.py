"""Millrace: takes transactions in, keeps every one it acknowledged, and answers exact statistics."""

from typing import Final

VERSION: Final = "0.1.0"
