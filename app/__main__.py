"""`python -m app`: the command line."""

import sys
from typing import Final

import click

from app.commands.backup import backup
from app.commands.clean import clean
from app.commands.migrate import migrate
from app.commands.seed import seed
from app.commands.serve import serve
from app.commands.stats import stats
from app.commands.token import token
from app.commands.verify import verify
from app.settings import SettingsError

_EXIT_WRONG_SETTING: Final = 2
# As shells have it: 128, and the number of the signal.
_EXIT_INTERRUPTED: Final = 130


@click.group(
    invoke_without_command=True,
    epilog="""\b
Settings come from the environment; DATABASE_URL (sqlite:///data/millrace.db) is
where transactions are kept. COMMAND --help says which settings matter to it.
\b
Examples:
  python -m app
  python -m app stats --watch""",
)
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
command_line.add_command(verify)
command_line.add_command(stats)


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
