"""Linearizability of rollouts: people, gates and replays interleaved at every call, with failures.

Each change is ended, or loses an answer, at a drawn call of MLflow or of the store, and another one runs in
the middle of it. Repeating what failed must succeed, and the result must be that of some order of the
changes, each made once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from mlflow.exceptions import MlflowException

from orchestrator.errors import OrchestratorError, RegistryError, StoreError
from orchestrator.registry.gate import GateDecision
from orchestrator.registry.rollouts import Rollouts
from orchestrator.registry.versions import VersionInfo
from orchestrator.store.prompt_store import PromptStore
from tests.unit.orchestrator.registry.factory import NOW_S, World

NUM_VERSIONS = 4


@dataclass(frozen=True)
class State:
    """What the rollout should be: the specification, in a few lines."""

    champion: int | None = None
    previous: int | None = None
    challenger: int | None = None
    canary: tuple[int, float] | None = None
    shadow: int | None = None

    def promoted(self, version: int | None) -> "State":
        if version is None or version == self.champion:
            return self
        previous = self.champion
        if previous is None and self.previous != version:
            previous = self.previous
        return State(
            champion=version,
            previous=previous,
            challenger=None if self.challenger == version else self.challenger,
            canary=None if self.canary and self.canary[0] == version else self.canary,
            shadow=None if self.shadow == version else self.shadow,
        )

    def changed(self, change: "Change", published_s: dict[int, float]) -> "State":
        kind, version = change.kind, change.version
        if kind == "promote":
            return self.promoted(version)
        if kind == "rollback":
            return self.promoted(self.previous)
        if kind in ("canary", "shadow"):
            if self.champion in (None, version):
                return self
            return replace(self, canary=(version, 0.5)) if kind == "canary" else replace(self, shadow=version)
        if kind == "stop":
            return replace(self, canary=None)
        return self.judged(version, change.is_better, published_s)

    def judged(self, version: int, is_better: bool, published_s: dict[int, float]) -> "State":
        is_late = self.champion is not None and published_s[version] < published_s[self.champion]
        if version == self.champion:
            return self
        if (is_better or self.champion is None) and not is_late:
            return self.promoted(version)
        roles = (self.previous, self.challenger, self.shadow, self.canary and self.canary[0])
        if version in roles:
            return self
        if self.challenger is not None and published_s[self.challenger] > published_s[version]:
            return self
        return replace(self, challenger=version)


@dataclass(frozen=True)
class Change:
    """One change: a command of a person, or a gate's decision on a version."""

    kind: str
    version: int
    is_better: bool = True


CHANGES = st.builds(
    Change,
    st.sampled_from(["promote", "promote", "rollback", "canary", "shadow", "stop", "gate", "gate"]),
    st.integers(1, NUM_VERSIONS),
    st.booleans(),
)
PLACES = st.tuples(st.integers(0, 25), st.sampled_from(["before", "after"]))


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.published_s = {number: NOW_S - 100 * abs(number - 3) for number in range(1, NUM_VERSIONS + 1)}
        for number, time_s in self.published_s.items():
            self.world.add(number=number, published_s=time_s)
        self.state = State()

    @rule(change=CHANGES)
    def alone(self, change: Change) -> None:
        self.make(change)
        self.expect({self.state.changed(change, self.published_s)})

    @rule(change=CHANGES, place=PLACES)
    def with_a_failure(self, change: Change, place: tuple[int, str]) -> None:
        self.make_with(change, place, self.fail)
        self.expect({self.state.changed(change, self.published_s)})

    @rule(first=CHANGES, second=CHANGES, place=PLACES)
    def in_the_middle(self, first: Change, second: Change, place: tuple[int, str]) -> None:
        """The second runs while the first is at a call; then the first goes on."""
        if not self.make_with(first, place, lambda: self.make(second)):
            self.make(second)
        self.expect(self.orders(first, second))

    @rule(first=CHANGES, second=CHANGES, place=PLACES)
    def ended_and_overtaken(self, first: Change, second: Change, place: tuple[int, str]) -> None:
        """The first is ended at a call; the second comes before the first is repeated."""

        def overtake() -> None:
            self.make(second)
            self.fail()

        if not self.make_with(first, place, overtake):
            self.make(second)
        # What was ended may have had its effect before it was repeated: once more is what was asked for.
        again = {state.changed(first, self.published_s) for state in self.orders(first, second)}
        self.expect(self.orders(first, second) | again)

    @rule(version=st.integers(1, NUM_VERSIONS))
    def moved_in_mlflows_page(self, version: int) -> None:
        """A person moves the champion by hand, long after all that was going on has ended."""
        if self.state.champion is None:
            return
        self.world.now_s += 1000.0
        self.world.rollouts().settle("bolts")
        self.world.move_by_hand("champion", version)
        before, self.state = self.state, replace(self.state, champion=version)
        if version != before.champion:
            self.state = replace(self.state, previous=before.champion)
        self.world.rollouts().settle("bolts")
        self.expect({self.state})

    @invariant()
    def previous_is_another_artifact(self) -> None:
        stored = self.world.store.read_rollout("bolts")
        if stored is not None and stored[0].version("previous") is not None:
            assert stored[0].digest("previous") != stored[0].digest("champion")

    @invariant()
    def each_digest_has_one_version(self) -> None:
        digests = [
            version.tags["ship.digest"] for version in self.world.mlflow.versions["ship.bolts"].values()
        ]
        assert len(digests) == len(set(digests))

    def orders(self, first: Change, second: Change) -> set[State]:
        return {
            self.state.changed(a, self.published_s).changed(b, self.published_s)
            for a, b in ((first, second), (second, first))
        }

    def expect(self, states: set[State]) -> None:
        self.world.rollouts().settle("bolts")
        aliases = self.world.registry.view("bolts").standing
        at = aliases.versions
        canary = None if "canary" not in at else (at["canary"], aliases.share)
        found = State(at.get("champion"), at.get("previous"), at.get("challenger"), canary, at.get("shadow"))
        assert found in states
        self.state = found

    def fail(self) -> None:
        raise _FaultError

    def make_with(self, change: Change, place: tuple[int, str], happens: Callable[[], None]) -> bool:
        """Make a change, during which something happens at a call; repeat it if it failed.

        Returns:
            Whether it happened: a change may have fewer calls.
        """
        number, when = place
        calls = {"before": 0, "after": 0}
        done = False

        def hook(at: str, error: Callable[[], Exception]) -> None:
            nonlocal done
            calls[at] += 1
            if done or at != when or calls[at] <= number:
                return
            done = True
            try:
                happens()
            except _FaultError:
                raise error() from None

        mlflow = self.world.mlflow
        objects = self.world.objects.client()
        objects.hook = lambda at: hook(at, lambda: StoreError("time-out"))
        mlflow.before = lambda _: hook("before", lambda: MlflowException("time-out"))
        mlflow.after = lambda _: hook("after", lambda: MlflowException("time-out"))
        try:
            self.make(change, self.world.rollouts(by="ben", store=PromptStore(objects)))
            return done
        except OrchestratorError:
            assert done
        finally:
            mlflow.before = mlflow.after = lambda _: None
        self.make(change)
        return True

    def make(self, change: Change, rollouts: Rollouts | None = None) -> None:
        """Make a change, with calls that are not looked at if it is made in the middle of another."""
        mlflow = self.world.mlflow
        hooks = mlflow.before, mlflow.after
        if rollouts is None:
            mlflow.before = mlflow.after = lambda _: None
        rollouts = rollouts or self.world.rollouts()
        try:
            self.apply(change, rollouts)
        except RegistryError as error:
            if "no previous champion" not in str(error) and "champion" not in str(error):
                raise
            if "did not" in str(error):
                raise
        finally:
            mlflow.before, mlflow.after = hooks

    def apply(self, change: Change, rollouts: Rollouts) -> None:
        kind, version = change.kind, change.version
        if kind == "promote":
            rollouts.promote("bolts", version)
        elif kind == "rollback":
            rollouts.rollback("bolts")
        elif kind == "canary":
            rollouts.start_canary("bolts", version, 0.5)
        elif kind == "shadow":
            rollouts.start_shadow("bolts", version)
        elif kind == "stop":
            rollouts.stop_canary("bolts")
        else:
            candidate = self.world.fresh_registry().version("bolts", version)

            def judge(champion: VersionInfo | None, _: str | None) -> GateDecision:
                return GateDecision(promote=change.is_better or champion is None, reason="drawn")

            rollouts.admit("bolts", candidate, judge)


class _FaultError(Exception):
    """The call fails here."""


TestRollouts = Machine.TestCase
TestRollouts.settings = settings(
    max_examples=60,
    stateful_step_count=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
