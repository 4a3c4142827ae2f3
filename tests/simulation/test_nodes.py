"""Nodes that die, come back and delete, over an exchange that loses and repeats.

Never is more counted than the truth, nor less than is said to be known; and at last it is the truth.
"""

import asyncio
import os
from collections.abc import Coroutine
from functools import partial
from typing import Any

import pytest
import structlog

from app.core.window import Shape
from app.ledger import commit, maintenance, rounds
from tests.simulation.world import Kind, Node, World
from tests.support.virtual_time import VirtualTimeLoop, run

SEEDS = int(os.environ.get("MILLRACE_SIMULATION_SEEDS", "6"))
FIRST_SEED = int(os.environ.get("MILLRACE_SIMULATION_FIRST_SEED", "0"))
SHAPE = Shape.covering(10_000, 500)
SETTLING_SECONDS = 5.0


class Story:
    """What happens to the nodes of a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.choose = world.choose
        self.ends = world.loop.time() + self.choose.uniform(3.0, 6.0)
        self.loses_nodes = self.choose.random() < 0.5
        """Whether nodes go for good with what they kept. Nothing is forgotten then but by them."""
        self.kinds = self.choose.choice(((Kind.SHARED,), (Kind.OWN, Kind.MEMORY), tuple(Kind)))
        self._number = 0
        self._works: set[asyncio.Task[None]] = set()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.world.loop.create_task(work)
        self._works.add(task)

    async def play(self) -> None:
        world, choose = self.world, self.choose
        faults = world.faults
        if choose.random() < 0.8:
            faults.lost_request, faults.lost_answer = (
                choose.choice((0.0, 0.1)),
                choose.choice((0.0, 0.1)),
            )
            faults.slow = choose.choice((0.0, 0.2))
            faults.repeated, faults.held = choose.choice((0.0, 0.2)), choose.choice((0.0, 0.3))
        faults.is_shuffled = choose.random() < 0.2
        self.is_shuffled = faults.is_shuffled
        for _ in range(choose.randint(2, 5)):
            self.run(self.join())
        self.run(self._post())
        self.run(self._check())
        while world.loop.time() < self.ends:
            await asyncio.sleep(choose.uniform(0.05, 0.5))
            self._act()
        faults.lost_request = faults.lost_answer = faults.slow = faults.repeated = faults.held = 0.0
        faults.is_shuffled = False
        await asyncio.gather(*self._works)
        for node in world.nodes:
            assert node.is_up or node.is_gone
        await asyncio.sleep(SETTLING_SECONDS)
        self.check()
        world.check_convergence()
        assert not world.failures

    async def join(self) -> None:
        self._number += 1
        kind = self.choose.choice(self.kinds)
        node = Node(self.world, f"n{self._number}", kind)
        self.world.nodes.append(node)
        await node.start()

    def _act(self) -> None:
        choose, world = self.choose, self.world
        up = [node for node in world.nodes if node.is_up]
        action = choose.choice(
            (
                self._die,
                self._die,
                self._leave,
                self._cut_off,
                self._clear,
                self._forget,
                self._join,
                self._lose_time,
            )
        )
        if up:
            action(choose.choice(up))

    def _die(self, node: Node) -> None:
        # What a store has kept that is still there, only those that share it can know.
        is_known_to_all = self.kinds == (Kind.SHARED,)
        if is_known_to_all or (self.loses_nodes and node.kind is not Kind.SHARED):
            node.is_gone = self.choose.random() < 0.3 and len(self.world.up) > 2
        if node.kind is Kind.MEMORY and not self.loses_nodes:
            return
        node.kill()
        if not node.is_gone:
            self.run(self._return(node))

    def _leave(self, node: Node) -> None:
        if node.kind is Kind.MEMORY and not self.loses_nodes:
            return
        self.run(self._leave_and_return(node))

    async def _leave_and_return(self, node: Node) -> None:
        await node.leave()
        await self._return(node)

    async def _return(self, node: Node) -> None:
        await asyncio.sleep(self.choose.choice((0.0, 0.3, 1.0, 4.0)) * self.choose.random())
        await node.start()

    def _cut_off(self, node: Node) -> None:
        self.run(self._cut_off_for(node, self.choose.choice((0.3, 1.0, 5.0)) * self.choose.random()))

    async def _cut_off_for(self, node: Node, seconds: float) -> None:
        exchange = node.exchange
        exchange.is_cut_off = True
        await asyncio.sleep(seconds)
        exchange.is_cut_off = False

    def _clear(self, node: Node) -> None:
        self.run(self._clear_now(node))

    async def _clear_now(self, node: Node) -> None:
        await asyncio.wait((node.task(node.clear()),))

    def _forget(self, node: Node) -> None:
        if not self.loses_nodes:
            stream, last = self.world.stream, self.choose.randrange(1, 40)
            lose = stream.evict, stream.forget, partial(stream.forget, last)
            self.choose.choice(lose)()

    def _lose_time(self, node: Node) -> None:
        self.run(self._lose_time_for(node, self.choose.uniform(0.0, 1.0)))

    async def _lose_time_for(self, node: Node, seconds: float) -> None:
        by_ms = self.choose.choice((-20_000, -3000, 3000, 20_000, 200_000))
        node.set_clock(by_ms)
        await asyncio.sleep(seconds)
        node.set_clock(-by_ms)

    def _join(self, node: Node) -> None:
        if len(self.world.nodes) < 7:
            self.run(self.join())

    async def _post(self) -> None:
        while self.world.loop.time() < self.ends + 0.5:
            await asyncio.sleep(self.choose.expovariate(150))
            # What is dated by a clock that is far ahead is left out by others until it has come.
            up = [node for node in self.world.nodes if node.is_up and not node.is_astray]
            if up:
                self.choose.choice(up).post()

    async def _check(self) -> None:
        while self.world.loop.time() < self.ends + 0.5:
            await asyncio.sleep(self.choose.uniform(0.02, 0.4))
            self.check()

    def check(self) -> None:
        self.world.check_safety()
        if not self.is_shuffled:
            self.world.check_honesty()


def play(seed: int, monkeypatch: pytest.MonkeyPatch) -> World:
    print(f"seed {seed}")
    loop = VirtualTimeLoop()
    if seed % 2:
        monkeypatch.setattr(rounds, "_SLOTS_MAX", 6)
    for module in (commit, maintenance, rounds):
        monkeypatch.setattr(module, "monotonic", loop.time)

    async def main() -> World:
        world = World(loop, seed, SHAPE)
        await Story(world).play()
        return world

    with structlog.testing.capture_logs() as logs:
        world = run(main(), loop)
    assert not [each for each in logs if each["event"] == "round_failed"]
    return world


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SEEDS))
def test_nodes_never_count_too_much_and_agree_on_the_truth_at_last(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(seed, monkeypatch)
