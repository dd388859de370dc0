"""What stands between a socket and the models: uvicorn's protocol, FastAPI and all they import.

Imported while models load (service/server.py): on two cores a start takes as long as the longer of the two.
"""

import asyncio
from functools import partial
from typing import cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from service.app import create_app
from service.context import Context, Traffic
from service.door import Make
from service.protocol import Bounds, Connection


def make_front(context: Context, traffic: Traffic, loop: asyncio.AbstractEventLoop) -> Make:
    """What makes the protocol of each connection on `loop`."""
    settings = context.settings
    config = Config(
        create_app(context),
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.idle_timeout_seconds,  # type: ignore[arg-type]  # any number of seconds will do
    )
    config.load()
    bounds = Bounds(
        settings.header_timeout_seconds,
        settings.body_timeout_seconds,
        settings.max_header_bytes,
        settings.max_connections,
    )
    return partial(Connection, config, cast("ServerState", traffic), loop, context, bounds)
