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


model = FastAPI()


@model.post("/generate")
def generate(prompt: Prompt) -> Prompt:
    """Answer as a model would that knows capital letters only."""
    return Prompt(text=prompt.text.upper())


def run_engine(store: KVStore, number: int, host: str) -> None:
    """Serve the model, and publish where. A real engine loads its weights before it says that it is ready."""
    with socket.create_server((host, 0)) as listener:
        store.set(f"engine:{number}/address", f"{host}:{listener.getsockname()[1]}")
        store.set(f"engine:{number}/ready", "1")
        uvicorn.Server(uvicorn.Config(model, log_level="warning")).run(sockets=[listener])


def front_end(store: KVStore, marks: list[str], addresses: list[str]) -> FastAPI:
    """Make the application that clients talk to. The addresses of the engines come when all are ready."""
    app, turns = FastAPI(), itertools.count()

    @app.get("/health")
    def health(response: Response) -> dict[str, list[str]]:
        # FastAPI runs a plain function on a thread, so this one may ask the store.
        if addresses:
            return {"engines": addresses}
        response.status_code = 503
        try:
            await_engines(store, marks, timeout=0)
        except WaitTimeoutError as error:
            return {"missing": [mark.removesuffix("/ready") for mark in error.missing]}
        return {"missing": []}

    @app.post("/generate")
    async def pass_on(prompt: Prompt) -> dict[str, str]:
        if not addresses:
            raise HTTPException(503, "the engines are not all ready; /health says which are missing")
        number = next(turns) % len(addresses)
        try:
            async with httpx.AsyncClient(timeout=60) as client:
                answer = await client.post(f"http://{addresses[number]}/generate", json=prompt.model_dump())
        except httpx.HTTPError as error:
            raise HTTPException(502, f"engine:{number} did not answer: {error!r}") from error
        return {"text": answer.json()["text"], "engine": f"engine:{number}"}

    return app


def await_engines(store: KVStore, marks: list[str], timeout: float) -> None:
    """Wait until all engines are ready. With their marks written out, the error knows who is missing."""
    store.wait_for_keys("engine:*/ready", len(marks), timeout=timeout, candidate_keys=marks)


async def run_front_end(store: KVStore, options: argparse.Namespace) -> None:
    """Serve from the first moment, while a thread waits for the engines; end with the reason where they don't come."""
    marks = expand("engine:*/ready", range(options.engines))
    addresses: list[str] = []
    server = uvicorn.Server(uvicorn.Config(front_end(store, marks, addresses), log_level="warning"))

    def find() -> None:
        try:
            await_engines(store, marks, options.patience)
            # An engine publishes its address before it says that it is ready, so these are there.
            places = [mark.replace("/ready", "/address") for mark in marks]
            addresses[:] = [store.wait_for_key(place, options.patience).decode() for place in places]
            print(f"all are ready, at {', '.join(addresses)}", flush=True)
        except KVStoreError:
            server.should_exit = True
            raise

    with socket.create_server((options.host, options.port)) as listener:
        print(f"waiting for {options.engines} engines: http://{options.host}:{options.port}/health", flush=True)
        finding = asyncio.create_task(asyncio.to_thread(find))
        try:
            await server.serve(sockets=[listener])
        finally:
            store.close()  # ends the thread, if it still waits
    await finding


def run(role: str, options: argparse.Namespace) -> None:
    """Be an engine or the front end. SIGTERM and Ctrl-C leave in order, so that the store is closed and keys go."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with open_store_from_config(options.url) as store:
            if role == "engine":
                run_engine(store, options.number, options.host)
            else:
                asyncio.run(run_front_end(store, options))
    except KeyboardInterrupt:
        sys.exit(0)
    except KVStoreError as error:
        sys.exit(f"serving failed: {error}")
    except OSError as error:
        sys.exit(f"serving failed: {error}; --host is an address of this machine, --port a free one")


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
    if options.engines < 1:
        parser.error("--engines is a number of at least 1")
    if not options.patience >= 0:
        parser.error("--patience is a number of seconds that is not negative")
    for number in range(options.engines if options.role == "all" else 0):
        # Daemons are ended, by SIGTERM, when this process ends.
        engine = argparse.Namespace(**vars(options) | {"number": number})
        multiprocessing.get_context("spawn").Process(target=run, args=("engine", engine), daemon=True).start()
    run(options.role, options)


if __name__ == "__main__":
    main()
