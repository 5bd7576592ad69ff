"""LitServe as its pages show it, with one worker, in batches or without: `... with_litserve litserve|litserve-batched TARGET PORT THREADS`.

A module of its own, since LitServe starts its workers anew and they have to find the class.
"""

import sys
from typing import Any

import litserve  # type: ignore[import-not-found]

from benchmarks.serving.load import HOST
from benchmarks.serving.servers import answering

BATCH = 32  # rows, as ours
WAIT_S = 0.01  # for company


class Single(litserve.LitAPI):  # type: ignore[misc]
    """One row at a time."""

    served, threads = "", 0

    def setup(self, device: Any) -> None:
        self.answers = answering(self.served, self.threads)

    def decode_request(self, request: litserve.Request) -> Any:
        return request["inputs"]

    def predict(self, row: Any) -> Any:
        return self.answers([row])[0]

    def encode_response(self, output: Any) -> Any:
        return {"outputs": output}


class Batched(Single):
    """What comes in 10 ms, together."""

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def predict(self, rows: Any) -> Any:
        return self.answers(rows)


if __name__ == "__main__":
    kind, served, port, threads = sys.argv[1:]
    api = Single() if kind == "litserve" else Batched(max_batch_size=BATCH, batch_timeout=WAIT_S)
    api.served, api.threads = served, int(threads)
    server = litserve.LitServer(api, accelerator="cpu", timeout=120)
    server.run(port=int(port), host=HOST, generate_client_file=False, log_level="warning", access_log=False)
