"""The fault classes of the matrix: how each is done to a scene, while something is in flight there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from laboratory import EtcdUsersSite, Stranger
from scene import Phase, Scene, Victims
from tcp_proxy import DIRECTIONS as BOTH
from tcp_proxy import Direction

__all__ = ["FAULTS", "Fault"]

REPLIES: tuple[Direction, ...] = ("replies",)

STANDSTILL = 1.2
"""Seconds that a process stands still: longer than it gave its operations."""


@dataclass(frozen=True)
class Fault:
    """One class of faults.

    Attributes
    ----------
    name : str
        As it stands in a cell's name.
    strike : callable
        Does it. What is in flight is held meanwhile, until `Scene.let_go`, or else has met what `arm` has set up.
    arm : callable
        Sets up what the next bytes in a direction will meet; by default they are held.
    meets : tuple of str
        Which bytes of a wait that polls `arm` has something to meet; of other operations, their phase tells.
    victims : str
        Whom it strikes in a cluster: ``leader``, ``follower``, ``all`` or ``others``; the stores ask the first of the
        victims first, or, with ``others``, the one that is left.
    in_a_process : bool
        Whether it strikes the client, which is then a process of its own.
    spares_servers : bool
        Whether the servers go on meanwhile, for those who are connected in another way.
    """

    name: str
    strike: Callable[[Scene], None]
    arm: Callable[[Scene, Direction], None] = Scene.hold
    meets: tuple[Direction, ...] = ("requests",)
    victims: Victims = "follower"
    in_a_process: bool = False
    spares_servers: bool = False

    def __str__(self) -> str:
        return self.name


# --- the servers ---


def _killed(scene: Scene) -> None:
    for victim in scene.victims:
        victim.kill()
    scene.undo.callback(scene.start_again)
    scene.let_go()


def _terminated(scene: Scene) -> None:
    for victim in scene.victims:
        victim.stop()
    scene.undo.callback(scene.start_again)
    scene.let_go()


def _frozen(scene: Scene) -> None:
    scene.undo.callback(scene.await_health)
    for victim in scene.victims:
        victim.freeze()
        scene.undo.callback(victim.thaw)
    scene.note_hit()
    scene.let_go()


def _wiped(scene: Scene) -> None:
    for victim in scene.victims:
        victim.wipe_and_restart()
    scene.let_go()


def _port_taken(scene: Scene) -> None:
    server = scene.victims[0]
    server.kill()
    scene.undo.callback(scene.start_again)
    scene.undo.callback(Stranger(server.endpoint).leave)
    scene.let_go()


def _out_of_space(scene: Scene) -> None:
    scene.etcd.run_out_of_space()
    scene.undo.callback(scene.etcd.have_space_again)
    scene.note_hit()
    scene.let_go()


def _tokens_expired(scene: Scene) -> None:
    assert isinstance(scene.site, EtcdUsersSite)
    scene.site.users.expire_tokens()
    scene.note_hit()
    scene.let_go()
    if scene.phase is Phase.STANDING:
        scene.proxy.reset()  # a stream that is open stays open; the next one needs a new token


def _compacted(scene: Scene) -> None:
    """Compact while no store can reach a server, so that a wait that resumes finds its revision gone."""
    beside = scene.beside()
    for proxy in scene.site.proxies:
        proxy.refuse()
    for number in range(3):
        beside.set("history", f"{number}")
    scene.etcd.compact()
    scene.let_go()


# --- the connections ---


def _done_by_arming(scene: Scene) -> None:
    """Do nothing more: the bytes have met the fault."""


def _reset(scene: Scene) -> None:
    scene.proxy.reset()


def _refused(scene: Scene) -> None:
    scene.proxy.refuse()


def _passing_again(scene: Scene) -> None:
    scene.proxy.release()


def _black_hole(scene: Scene, direction: Direction) -> None:
    scene.proxy.blackhole("requests", "replies")


def _black_hole_one_way(scene: Scene, direction: Direction) -> None:
    scene.proxy.blackhole(direction)


def _half_open(scene: Scene, direction: Direction) -> None:
    scene.proxy.half_open()


def _drop_replies(scene: Scene, direction: Direction) -> None:
    scene.proxy.drop_replies(passing=scene.said_unasked)


def _cut_in_mid_frame(scene: Scene, direction: Direction) -> None:
    scene.proxy.cut_after(scene.said_unasked + 1 if direction == "replies" else 1, direction)


def _slow(scene: Scene, direction: Direction) -> None:
    scene.proxy.delay(0.05, "requests", "replies", jitter=0.1)


def _lossy(scene: Scene, direction: Direction) -> None:
    scene.proxy.lose(0.5, "requests", "replies")


# --- the clients ---


def _client_killed(scene: Scene) -> None:
    scene.process.kill()
    scene.let_go()


def _client_frozen(scene: Scene) -> None:
    scene.process.freeze()
    scene.undo.callback(scene.process.thaw)
    scene.note_hit()
    scene.let_go()
    time.sleep(STANDSTILL)


def _descriptors_used_up(scene: Scene) -> None:
    scene.process.use_up_descriptors()
    scene.undo.callback(scene.process.have_descriptors_again)
    scene.note_hit()
    for proxy in scene.site.proxies:
        proxy.reset()


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("killed-server", _killed, victims="all"),
        Fault("killed-leader", _killed, victims="leader"),
        Fault("killed-follower", _killed),
        Fault("killed-members", _killed, victims="all"),
        Fault("terminated-server", _terminated, victims="all"),
        Fault("terminated-leader", _terminated, victims="leader"),
        Fault("frozen-server", _frozen, victims="all"),
        Fault("frozen-leader", _frozen, victims="leader"),
        Fault("frozen-follower", _frozen),
        Fault("quorum-lost", _frozen, victims="others"),
        Fault("wiped-server", _wiped, victims="all"),
        Fault("port-taken", _port_taken, victims="all"),
        Fault("space-alarm", _out_of_space),
        Fault("compaction", _compacted, spares_servers=True),
        Fault("expired-token", _tokens_expired, spares_servers=True),
        Fault("black-hole", _done_by_arming, _black_hole, BOTH, spares_servers=True),
        Fault("black-holed-requests", _done_by_arming, _black_hole_one_way, spares_servers=True),
        Fault("black-holed-replies", _done_by_arming, _black_hole_one_way, REPLIES, spares_servers=True),
        Fault("half-open", _done_by_arming, _half_open, BOTH, spares_servers=True),
        Fault("reset", _reset, spares_servers=True),
        Fault("refused", _refused, spares_servers=True),
        Fault("dropped-reply", _done_by_arming, _drop_replies, REPLIES, spares_servers=True),
        Fault("cut-in-mid-request", _passing_again, _cut_in_mid_frame, spares_servers=True),
        Fault("cut-in-mid-reply", _passing_again, _cut_in_mid_frame, REPLIES, spares_servers=True),
        Fault("slow", _done_by_arming, _slow, spares_servers=True),
        Fault("lossy", _done_by_arming, _lossy, spares_servers=True),
        Fault("killed-client", _client_killed, in_a_process=True, spares_servers=True),
        Fault("frozen-client", _client_frozen, meets=REPLIES, in_a_process=True, spares_servers=True),
        Fault("descriptors-used-up", _descriptors_used_up, in_a_process=True, spares_servers=True),
    )
}
"""The fault classes, by name."""
