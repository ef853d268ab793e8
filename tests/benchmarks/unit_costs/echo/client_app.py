"""A site that answers with as much as it is asked for, and does nothing else.

Stands where ``client/app.py`` does in a staged app, see `tests.benchmarks.unit_costs.messages`.
"""

from __future__ import annotations

from client.memory import peak
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

import client.site  # noqa: F401 - a site's process holds what a real one does

app = ClientApp()


@app.query("echo")
def echo(message: Message, _: Context) -> Message:
    """Answer with ``up`` bytes and ``items`` pieces of 66 bytes."""
    asked = message.content.config_records["question"]
    answer = {
        "report": bytes(int(asked["up"])),  # type: ignore[arg-type]
        "memory": peak(),
        "shares": [bytes(66)] * int(asked["items"]),  # type: ignore[arg-type]
    }
    return Message(RecordDict({"answer": ConfigRecord(answer)}), reply_to=message)
