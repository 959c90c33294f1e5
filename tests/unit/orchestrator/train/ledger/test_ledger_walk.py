"""Random walks over a ledger: whatever happens, in whatever order, the invariants hold."""

import random
from collections import Counter

import pytest

from orchestrator.train.ledger.failures import Failure
from orchestrator.train.ledger.grants import Ended, Lease, LedgerPolicy
from orchestrator.train.ledger.ledger import Ledger
from tests.unit.orchestrator.train.fakes import Clock, Spec, epoch

NUM_EPOCHS = 4


class Walk:
    """A pool of workers that do anything that workers do, and a record of what the ledger said."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = Clock()
        self.specs = [Spec(f"t{number}", num_images=number) for number in range(12)]
        self.policy = LedgerPolicy(lease_s=30, backoff_s=1)
        self.ledger = Ledger(self.specs, self.policy, self.clock)
        self.events = []
        self.since = 0
        self.seen = self.ledger.status()
        self.tokens: set[tuple[str, int]] = set()
        # Worker to what it works on, by name, and the epochs that are done.
        self.held: dict[str, dict[str, tuple[Lease, int]]] = {}
        self.largest_pack = self.num_lost = 0
        self.zombies: list[tuple[str, Lease]] = []
        self.generation = 0
        self.num_seats = 3
        self.restart()

    def restart(self) -> None:
        """The pool starts again: all leases are in the hands of dead or unreachable workers."""
        self.zombies += [(worker, lease) for worker, held in self.held.items() for lease, _ in held.values()]
        self.generation += 1
        self.num_seats = self.random.randint(1, 3)
        self.workers = [f"g{self.generation}s{seat}" for seat in range(self.num_seats)]
        self.held = {worker: {} for worker in self.workers}
        for seat, worker in enumerate(self.workers):
            self.ledger.join(worker, seat, self.num_seats)

    def step(self) -> None:
        act = self.random.choices(
            [self.work, self.pause, self.crash, self.restart, self.haunt, self.lose_ledger],
            weights=[80, 8, 2, 1, 8, 1],
        )[0]
        act()
        if self.random.random() < 0.5:
            self.look()

    def work(self) -> None:
        worker = self.random.choice(self.workers)
        held = self.held[worker]
        if not held or self.random.random() < 0.2:
            grant = self.ledger.lease(worker, list(held))
            if isinstance(grant, Lease):
                token = (grant.spec.name, grant.attempt)
                assert token not in self.tokens, "a fencing token was given twice"
                self.tokens.add(token)
                held[grant.spec.name] = (grant, 0)
                self.check_alone(worker)
            return
        name = self.random.choice(list(held))
        lease, done = held[name]
        attempt = lease.attempt
        chance = self.random.random()
        if chance > 0.99:
            self.ledger.stall(worker, name, attempt, "no progress", is_shared=self.random.random() < 0.5)
            self.restart()
        elif chance < 0.1:
            is_shared = len(held) > 1 and chance < 0.03
            failure = Failure(cause="?", is_retryable=chance < 0.08, is_shared=is_shared)
            self.ledger.fail(worker, name, attempt, failure)
            del held[name]
        elif done == NUM_EPOCHS:
            self.ledger.complete(worker, name, attempt, {})
            del held[name]
        elif self.ledger.heartbeat(worker, name, attempt, epoch(done + 1, of=NUM_EPOCHS)):
            held[name] = (lease, done + 1)
        else:
            del held[name]

    def check_alone(self, worker: str) -> None:
        """A suspect shares its worker with no other task."""
        statuses = {status.task: status for status in self.ledger.status().tasks}
        held = [
            status
            for name, (lease, _) in self.held[worker].items()
            if (status := statuses[name]).state == "leased"
            and (status.worker, status.attempt) == (worker, lease.attempt)
        ]
        assert len(held) == 1 or not any(status.is_suspect for status in held)
        self.largest_pack = max(self.largest_pack, len(held))

    def pause(self) -> None:
        self.clock.advance(self.random.choice([1, 5, 40]))

    def crash(self) -> None:
        self.ledger.crashed(self.random.randrange(self.num_seats), "SIGKILL")
        self.restart()

    def haunt(self) -> None:
        """A worker that lost its lease long ago reports; the report must be ignored."""
        if not self.zombies:
            return
        worker, lease = self.random.choice(self.zombies)
        assert not self.ledger.heartbeat(worker, lease.spec.name, lease.attempt)
        assert not self.ledger.complete(worker, lease.spec.name, lease.attempt, {})
        assert not self.ledger.fail(
            worker, lease.spec.name, lease.attempt, Failure(cause="", is_retryable=False)
        )

    def lose_ledger(self) -> None:
        """The ledger's process dies, is filled again from the driver's last look, and workers join again."""
        self.num_lost += 1
        self.ledger = Ledger(self.specs, self.policy, self.clock, self.seen, self.num_lost)
        self.since = 0
        for seat, worker in enumerate(self.workers):
            self.ledger.join(worker, seat, self.num_seats)

    def look(self) -> None:
        """A look of the driver, as it takes one about twice a second."""
        events, self.since = self.ledger.read(self.since)
        self.events += events
        self.seen = self.ledger.status()


@pytest.mark.parametrize("seed", range(60))
def test_invariants_hold_and_every_task_ends(seed: int) -> None:
    walk = Walk(seed)
    for _ in range(20_000):
        walk.step()
        if walk.seen.all_ended:
            break
    assert walk.seen.all_ended
    walk.ledger.close()
    assert all(walk.ledger.lease(worker) == Ended() for worker in walk.workers)
    ends = Counter(event.task for event in walk.events if event.kind in ("published", "failed"))
    assert ends == Counter(spec.name for spec in walk.specs), "each task ends exactly once"
    check_order(walk)
    assert walk.largest_pack > 1


def check_order(walk: Walk) -> None:
    """Between two leases of one task there is always the end of the first."""
    is_held = dict.fromkeys((spec.name for spec in walk.specs), False)
    for event in walk.events:
        if event.kind == "leased":
            assert not is_held[event.task], "two live leases of one task"
        else:
            assert is_held[event.task], f"{event.kind} of a task that no worker held"
        is_held[event.task] = event.kind in ("leased", "epoch")
