"""A FastAPI front end waits until all of its inference engines are ready, and then passes prompts to them in turn.

One command starts two engines and the front end on this machine; the store is that of ``--url`` or `ETHA_KVSTORE_URL`::

    python examples/serving.py --url etcd://127.0.0.1:2379/serving/engine

or each is started alone, wherever it belongs, in any order::

    python examples/serving.py engine --number 0 --host 10.0.0.1
    python examples/serving.py front --engines 2 --host 10.0.0.9
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import multiprocessing
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel

from etha.kvstore import KVStore, open_store_from_config
from etha.kvstore.errors import KVStoreError, WaitTimeoutError
from etha.kvstore.patterns import expand


class Prompt(BaseModel):
    """What a client asks, and what an engine answers."""

    text: str


@contextmanager
def until_told_to_stop() -> Iterator[None]:
    """Leave in order on SIGTERM and Ctrl-C, so that the store is closed and keys go; say in a line why it failed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(0)
    except KVStoreError as error:
        sys.exit(f"serving failed: {error}")


# --- an engine ---

model = FastAPI()


@model.post("/generate")
def generate(prompt: Prompt) -> Prompt:
    """Answer as a model would that knows capital letters only."""
    return Prompt(text=prompt.text.upper())


@until_told_to_stop()
def run_engine(number: int, host: str, url: str | None) -> None:
    """Serve the model, and publish where. A real engine loads its weights before it says that it is ready."""
    with socket.create_server((host, 0)) as listener, open_store_from_config(url) as store:
        store.set(f"engine:{number}/address", f"{host}:{listener.getsockname()[1]}")
        store.set(f"engine:{number}/ready", "1")
        uvicorn.Server(uvicorn.Config(model, log_level="warning")).run(sockets=[listener])


# --- the front end ---


class Engines:
    """The engines that a front end needs, and where they are once all are ready."""

    def __init__(self, store: KVStore, count: int) -> None:
        self.store = store
        self.marks = expand("engine:*/ready", range(count))
        self.addresses: list[str] = []

    def find(self, patience: float) -> None:
        """Wait until all are ready, then read where they are. It blocks, so it is for a thread."""
        self.wait(patience)
        places = [mark.replace("/ready", "/address") for mark in self.marks]
        # An engine publishes its address before it says that it is ready, so these are there.
        self.addresses = [self.store.wait_for_key(place, patience).decode() for place in places]
        print(f"all are ready, at {', '.join(self.addresses)}", flush=True)

    def missing(self) -> list[str]:
        """Name those that are not ready now."""
        try:
            self.wait(0)
        except WaitTimeoutError as error:
            return [mark.removesuffix("/ready") for mark in error.missing]
        return []

    def wait(self, timeout: float) -> None:
        """Wait for all to be ready. With their marks written out, the error knows who is missing."""
        self.store.wait_for_keys("engine:*/ready", len(self.marks), timeout=timeout, candidate_keys=self.marks)


def front_end(engines: Engines) -> FastAPI:
    """Make the application that clients talk to."""
    app, turns = FastAPI(), itertools.count()

    @app.get("/health")
    def health(response: Response) -> dict[str, list[str]]:
        # FastAPI runs a plain function on a thread, so this one may ask the store.
        if engines.addresses:
            return {"engines": engines.addresses}
        response.status_code = 503
        return {"missing": engines.missing()}

    @app.post("/generate")
    async def pass_on(prompt: Prompt) -> dict[str, str]:
        if not engines.addresses:
            raise HTTPException(503, "the engines are not all ready; /health says which are missing")
        number = next(turns) % len(engines.addresses)
        try:
            async with httpx.AsyncClient(timeout=60) as client:
                answer = await client.post(f"http://{engines.addresses[number]}/generate", json=prompt.model_dump())
        except httpx.HTTPError as error:
            raise HTTPException(502, f"engine:{number} did not answer: {error!r}") from error
        return {"text": answer.json()["text"], "engine": f"engine:{number}"}

    return app


async def serve(engines: Engines, host: str, port: int, patience: float) -> None:
    """Serve from the first moment, while a thread waits for the engines; end with the reason where they don't come."""
    server = uvicorn.Server(uvicorn.Config(front_end(engines), host=host, port=port, log_level="warning"))

    async def find() -> None:
        try:
            await asyncio.to_thread(engines.find, patience)
        except KVStoreError:
            server.should_exit = True
            raise

    finding = asyncio.create_task(find())
    try:
        await server.serve()
    finally:
        engines.store.close()  # ends the thread, if it still waits
    await finding


@until_told_to_stop()
def run_front_end(options: argparse.Namespace) -> None:
    """Serve until told to stop, or until the engines have not come in time."""
    with open_store_from_config(options.url) as store:
        print(f"waiting for {options.engines} engines: http://{options.host}:{options.port}/health", flush=True)
        asyncio.run(serve(Engines(store, options.engines), options.host, options.port, options.patience))


def main() -> None:
    """Read the command line, and be what it says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("role", nargs="?", choices=("all", "front", "engine"), default="all")
    parser.add_argument("--url", help="the store; without it, what ETHA_KVSTORE_URL says")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen, and what to tell the others")
    parser.add_argument("--port", type=int, default=8000, help="the front end's port")
    parser.add_argument("--engines", type=int, default=2, help="how many engines there are")
    parser.add_argument("--number", type=int, default=0, help="which engine this is")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds that the front end waits")
    options = parser.parse_args()
    if options.role == "engine":
        run_engine(options.number, options.host, options.url)
        return
    for number in range(options.engines if options.role == "all" else 0):
        # Daemons are ended, by SIGTERM, when this process ends.
        engine = (number, options.host, options.url)
        multiprocessing.get_context("spawn").Process(target=run_engine, args=engine, daemon=True).start()
    run_front_end(options)


if __name__ == "__main__":
    main()
