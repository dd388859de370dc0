"""`slipway serve`: its flags are settings of the service."""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    repository: Annotated[Path | None, typer.Option(help="Folder of published models. Default: models.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port; 0 lets the system choose. Default: 8000.")] = None,
    variant: Annotated[str | None, typer.Option(help="Variant to serve. Default: the best one for this CPU.")] = None,
    default_model: Annotated[str | None, typer.Option(help="Model that answers when a request names none.")] = None,
    workers: Annotated[int | None, typer.Option(help="Server processes that share the port. Default: 1.")] = None,
    model_workers: Annotated[
        int | None, typer.Option(help="Worker threads of each model. Default: one per core of a process.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error. Default: info.")] = None,
    log_format: Annotated[str | None, typer.Option(help="json or console. Default: json.")] = None,
) -> int:
    """Serve the published models over HTTP until SIGTERM or Ctrl-C.

    A flag wins over the environment variable of the same name: --port over SLIPWAY_PORT. docs/settings.md lists
    every setting; those without a flag are set in the environment.
    """
    from service.config import load_settings
    from service.supervisor import serve as run

    return run(
        load_settings(
            {
                "repository": repository,
                "host": host,
                "port": port,
                "variant": variant,
                "default_model": default_model,
                "workers": workers,
                "model_workers": model_workers,
                "log_level": log_level,
                "log_format": log_format,
            }
        )
    )
