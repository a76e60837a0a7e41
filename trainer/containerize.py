"""`bentoml containerize`, mended: the `bentoml` command loads it from this package (entry point `bentoml.commands`).

BentoML since 1.4.36 refuses the Dockerfile template that it has packed into a Bento itself, as a file outside of the
current folder (its issue 5566). There is no setting for that, so the one function that refuses is told not to; it is
private, and `tests/test_bento.py` fails where BentoML has moved or mended it.
"""

from __future__ import annotations

import functools

from bentoml._internal.container import generate
from bentoml_cli.containerize import containerize_command

generate.resolve_user_filepath = functools.partial(generate.resolve_user_filepath, secure=False)

command = containerize_command
