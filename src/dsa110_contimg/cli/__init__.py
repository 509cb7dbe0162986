"""The command line ``contimg``: one file a group of commands.

Each command parses, calls one function and prints.

Results go to stdout (``--json``: one JSON object and nothing else), progress and logs to stderr. Importing
this package gives every command.
"""

from dsa110_contimg.cli.app import app
from dsa110_contimg.cli.main import main

__all__ = ["app", "main"]
