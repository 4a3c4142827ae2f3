"""`python -m app`: read the settings, serve."""

import os
import sys
from typing import Final

from app.server.serve import serve
from app.settings import SettingsError, read_settings

_EXIT_WRONG_SETTING: Final = 2


def main() -> int:
    """Start the service; the exit status."""
    try:
        settings = read_settings(os.environ)
    except SettingsError as error:
        sys.stderr.write(f"millrace: {error}\n")
        return _EXIT_WRONG_SETTING
    return serve(settings)


if __name__ == "__main__":
    sys.exit(main())
