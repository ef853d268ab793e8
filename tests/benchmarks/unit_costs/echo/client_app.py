"""A site that is busy for a while, and answers with as much as it is asked for.

Stands where ``client/app.py`` does in a staged app, see `tests.benchmarks.unit_costs.messages`.
"""

from __future__ import annotations

import time

from client.memory import peak
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

import client.site  # noqa: F401 - a site's process holds what a real one does

app = ClientApp()


@app.query("echo")
def echo(message: Message, _: Context) -> Message:
    """Take ``work`` milliseconds of a core; answer with ``up`` bytes, ``items`` of 66 bytes."""
    asked = message.content.config_records["question"]
    end = time.thread_time() + int(asked["work"]) / 1000  # type: ignore[arg-type]
    while time.thread_time() < end:
        pass
    answer = {
        "report": bytes(int(asked["up"])),  # type: ignore[arg-type]
        "memory": peak(),
        "shares": [bytes(66)] * int(asked["items"]),  # type: ignore[arg-type]
    }
    return Message(RecordDict({"answer": ConfigRecord(answer)}), reply_to=message)
