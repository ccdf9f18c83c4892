"""Waits for many: their CPU time, how it grows, their threads and streams, and what they ask while nothing happens."""

from __future__ import annotations

from contextlib import ExitStack, closing
from statistics import median
from time import monotonic, sleep

from children import Child
from etcd_server import EtcdServer
from harness import Line, Result, Series, compare, duration, spread
from raw_etcd import await_watchers, server_metric
from scale_counts import Counts, Relay, growth
from tcpstore_host import TorchHost

__all__ = ["measure_arrivals", "measure_crowd", "measure_quiet"]

NAMESPACE = "job-42"
STORE, RAW = "etha.kvstore", "raw watch, decoded"

SIZES, QUICK_SIZES = (1_000, 10_000), (200, 2_000)
"""How many keys arrive; a quick run is content with a fifth."""

WAITS = 1_000

SETTLE_SECONDS = 4.0
"""After this a wait on TCPStore pauses as long as it ever does, and gRPC has as many threads as it will have."""


def measure_arrivals(quick: bool) -> Result:
    """Take the CPU time of a process whose `wait_for_keys` is told of keys one by one, and of one that only decodes."""
    result = Result()
    few, many = QUICK_SIZES if quick else SIZES
    series = {count: Series(f"etcd, CPU time of {count:,} arrivals", {STORE: [], RAW: []}) for count in (few, many)}
    with EtcdServer() as server, Child("setter.py", "etcd", server.endpoint) as setter:
        for number in range(1 if quick else 5):
            for count in (few, many):
                for name, how in ((STORE, "etcd-keys"), (RAW, "etcd-raw")):
                    component = f"{how}-{number}-{count}"
                    series[count].samples[name].append([_arrive(server, setter, how, component, count)])
    result.series += series.values()
    result.lines.append(compare("etcd-arrivals", "CPU time", series[many], STORE, RAW))
    for name, target in ((STORE, "etcd-growth"), (RAW, "")):
        rounds = zip(series[few].rounds(name), series[many].rounds(name), strict=True)
        ratios = [after / before for before, after in rounds]
        note = " and ".join(f"{duration(series[count].median(name))} for {count:,} keys" for count in (few, many))
        what = "growth" if target else "growth of the CPU time of decoding alone"
        result.lines.append(Line(target, what, median(ratios), spread(ratios), note=note))
    return result


def _arrive(server: EtcdServer, setter: Child, how: str, component: str, count: int) -> float:
    """Give the CPU seconds from just before the first key to just after the last one."""
    with Child("waiter.py", how, server.endpoint, component, str(count)) as waiter:
        await_watchers(server.endpoint, 1)
        (before,) = waiter.ask("cpu")
        setter.ask(f"many {NAMESPACE}/{component}/rank: {count}")
        (after,) = waiter.hear()
    await_watchers(server.endpoint, 0)
    return after - before


def measure_crowd(quick: bool) -> Result:
    """Count the threads of a process beyond its 1,000 that wait, and the streams that it has at the server."""
    settle = SETTLE_SECONDS / 2 if quick else SETTLE_SECONDS
    with EtcdServer() as server:
        with Child("waiter.py", "etcd-each", server.endpoint, "crowd", "0") as idle:
            before = _threads(idle, settle)
        with Child("waiter.py", "etcd-each", server.endpoint, "crowd", str(WAITS)) as crowd:
            await_watchers(server.endpoint, WAITS)
            threads = _threads(crowd, settle) - WAITS
            streams = server_metric(server.endpoint, "etcd_debugging_mvcc_watch_stream_total")
    note = f"{threads} beside the {WAITS:,} that wait, {before} of them in a process whose open store waits for nothing"
    return Result(
        [
            Line("etcd-crowd", "threads", threads - before, note=note),
            Line("etcd-crowd", "streams", streams, limit=1.0, note="counted by the server"),
        ]
    )


def _threads(child: Child, settle: float) -> int:
    """Count a process's threads once it has settled: gRPC starts and ends some of its own as it sees fit."""
    sleep(settle)
    seen = []
    for _ in range(9):
        seen.append(child.threads)
        sleep(0.2)
    return int(median(seen))


def measure_quiet(quick: bool) -> Result:
    """Count what waits for 1,000 keys ask while nothing happens, in the same minute, each on a server of its own."""
    seconds = 3.0 if quick else 33.0
    with ExitStack() as opened:
        etcd = opened.enter_context(EtcdServer())
        relays = []
        for _ in range(2):
            host = opened.enter_context(TorchHost())
            relays.append(opened.enter_context(closing(Relay(host.endpoint))))
        addresses = [f"127.0.0.1:{relay.port}" for relay in relays]
        ways = zip(("tcpstore-all", "tcpstore-half", "etcd-keys"), (*addresses, etcd.endpoint), strict=True)
        waiters = [Child("waiter.py", how, address, "quiet", str(WAITS)) for how, address in ways]
        for waiter in waiters:
            opened.enter_context(waiter)
        await_watchers(etcd.endpoint, 1)
        sleep(SETTLE_SECONDS)
        if not quick:
            _await_request(etcd)  # a re-read every 10 s makes three then, wherever the window lies
        asked_before, before = _etcd_requests(etcd), [relay.counts() for relay in relays]
        sleep(seconds)
        asked = _etcd_requests(etcd) - asked_before
        for_all, for_half = (growth(old, relay.counts()) for old, relay in zip(before, relays, strict=True))
    return Result(
        [
            Line("quiet", "etcd", asked / max(1, seconds // 10), note=f"{asked:.0f} in {seconds:.0f} s"),
            Line(
                "quiet",
                "TCPStore, all candidates expected",
                _requests(for_all) / seconds,
                limit=20.0,
                unit="a second",
                note=f"in {seconds:.0f} s {_kinds(for_all)}",
            ),
            Line(
                "quiet",
                "TCPStore, half of the candidates expected",
                _requests(for_half) / seconds,
                stated=True,
                unit="a second",
                note=f"in {seconds:.0f} s {_kinds(for_half)}",
            ),
        ]
    )


def _etcd_requests(server: EtcdServer) -> float:
    """Count the messages that a server has had from its clients; keepalive is none of them."""
    return server_metric(server.endpoint, "grpc_server_msg_received_total")


def _await_request(server: EtcdServer) -> None:
    """Wait until the server is asked something, or for longer than it takes a wait to ask again."""
    before, end = _etcd_requests(server), monotonic() + 12.0
    while _etcd_requests(server) == before and monotonic() < end:
        sleep(0.1)


def _requests(counts: Counts) -> float:
    return sum(count for what, count in counts.items() if what != "bytes_in")


def _kinds(counts: Counts) -> str:
    """Name the requests that there were."""
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count and what != "bytes_in")
