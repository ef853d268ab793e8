"""A site's app with replayable coins, which notes the sizes of all that leaves it.

Flower ships it with the bundle, and this package is called `client` there.
"""

import contextlib
import io
import json
import logging
from pathlib import Path
from typing import Any
from uuid import uuid4

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.common.serde import recorddict_to_proto

from client.app import create_app
from tests.support.seeded_rng import SeededRNG


class Recorded(ClientApp):
    """Writes a file in the folder ``wire`` of the run for each reply."""

    def __call__(self, message: Message, context: Context) -> Message:
        said, handler = io.StringIO(), logging.StreamHandler()
        handler.setStream(said)
        logging.getLogger().addHandler(handler)
        logging.getLogger().setLevel(logging.DEBUG)
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            reply = super().__call__(message, context)
        logging.getLogger().removeHandler(handler)
        sent: dict[str, Any] = {
            name: {key: _size(value) for key, value in record.items()}
            for name, record in reply.content.items()
        }
        sent["said"] = said.getvalue()
        sent["wire"] = recorddict_to_proto(reply.content).ByteSize()
        folder = Path(str(context.run_config["sites"])).parent / "wire"
        folder.mkdir(exist_ok=True)
        (folder / str(uuid4())).write_text(json.dumps(sent))
        return reply


def _size(value: Any) -> int:
    if isinstance(value, list):
        return sum(map(_size, value))
    return len(value) if isinstance(value, bytes) else 8


app = create_app(SeededRNG)
app.__class__ = Recorded
