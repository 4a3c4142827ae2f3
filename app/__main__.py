"""`python -m app`: the command line."""

import sys
from typing import Final

import click

from app.commands.backup import backup
from app.commands.clean import clean
from app.commands.migrate import migrate
from app.commands.seed import seed
from app.commands.serve import serve
from app.commands.token import token
from app.settings import SettingsError

_EXIT_WRONG_SETTING: Final = 2
# As shells have it: 128, and the number of the signal.
_EXIT_INTERRUPTED: Final = 130


@click.group(invoke_without_command=True)
@click.pass_context
def command_line(context: click.Context) -> int:
    """Millrace: transactions in, exact statistics out. Without a command, it serves."""
    return int(context.invoke(serve)) if context.invoked_subcommand is None else 0


command_line.add_command(serve)
command_line.add_command(migrate)
command_line.add_command(backup)
command_line.add_command(token)
command_line.add_command(seed)
command_line.add_command(clean)


def main() -> int:
    """Run a command; the exit status."""
    try:
        status: int = command_line(prog_name="python -m app", standalone_mode=False)
    except SettingsError as error:
        sys.stderr.write(f"millrace: {error}\n")
        return _EXIT_WRONG_SETTING
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _EXIT_INTERRUPTED
    return status


if __name__ == "__main__":
    sys.exit(main())
