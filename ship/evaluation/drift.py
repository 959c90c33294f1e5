"""A sequential test for drift: whether served pictures are still like the held-out ones. Without I/O.

Watched are shares of pictures: the unsure ones, those of low confidence, those that lie far from (or close
to) the training images, and those of each predicted class. The null hypothesis is that, whatever came
before, the next picture's distribution is within ``tolerance`` in total variation of the one that the
held-out pictures were drawn from: then each share is at most the held-out one's upper confidence bound plus
the tolerance. Against that bound ``p``, a bet on a share ``q > p`` multiplies its wealth by ``q / p`` where a
picture has the mark and by ``(1 - q) / (1 - p)`` where not, which under the null gains nothing on average. A
bet that has lost starts anew (CUSUM), and an alarm is raised when the weighted wealth of all bets reaches
``run_length``: an e-detector (J. Shin, A. Ramdas, A. Rinaldo, 2022), whose mean number of pictures to a false
alarm is at least ``run_length``, and whose chance of one within ``T`` pictures is at most ``T / run_length``.

Neighbours that are alike, such as ten pictures of each part, are less evidence than as many parts. So the
factors of a bet are raised to a power of at most 1 that is known before the picture: how many marks changed
from a picture to the next of late, over how many do among independent held-out ones. Under the null a bet
still gains nothing on average (J. Jensen's inequality), and ``k`` pictures of a part count as about one.
"""

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from ship.errors import ConfigError

__all__ = ["RUN_LENGTH", "TOLERANCE", "Cuts", "Detector", "Observation", "Reference", "Watch"]

TOLERANCE = 0.2
RUN_LENGTH = 1e7
# Chance that any share's upper bound is too low because of the held-out pictures that were drawn.
_MISSES = 0.01
_MIN_HELD_OUT = 20
_MAX_CLASSES = 8
# A share this close to 1 leaves nothing to bet on.
_MOST = 0.97
# Shares that are bet on, as parts of the way from the bound to 1.
_BETS = (0.15, 0.45, 0.85)
# Pictures whose bets are settled together.
_CHUNK = 8
# Of the two blocks of pictures that recent shares are of.
_BLOCK = 500
# Pictures over which it is remembered how much neighbours differ.
_MEMORY = 200
# The least that a picture counts: a camera that shows one picture for ever is found, too.
_LEAST = 1 / 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What is watched of one answer.

    Attributes:
        label: Likeliest class.
        is_unsure: Whether the decision rule answered ``unsure``.
        confidence: Calibrated probability of the likeliest class.
        distance: Distance from the training images; None where it is not known.
    """

    label: str
    is_unsure: bool
    confidence: float
    distance: float | None = None


@dataclass(frozen=True, kw_only=True)
class Cuts:
    """What tells pictures apart, and by which marks: made from held-out pictures.

    Attributes:
        confidence: A picture below is of low confidence; the tenth percentile.
        distances: A picture beyond is far: the median and the ninetieth percentile; none if not measured.
        near: A picture below is near: the tenth percentile; None if not measured.
        classes: The classes that are watched, the most frequent first.
        others: Whether there are further classes, which are watched together.
    """

    confidence: float
    distances: tuple[float, ...]
    near: float | None
    classes: tuple[str, ...]
    others: bool

    def marks(self) -> list[str]:
        """Names of the marks, in the order of ``find``: the signal, a colon and its detail."""
        return [
            "unsure:",
            "confidence:low",
            *(f"distance:far{place}" for place in range(len(self.distances))),
            *(["distance:near", "distance:within"] if self.near is not None else []),
            *(f"class:{word}:{label}" for label in self.classes for word in ("is", "not")),
            *(["class:other"] if self.others else []),
        ]

    def find(self, one: Observation) -> Iterator[bool]:
        """Whether a picture has each mark. One without a distance has none of the marks of distances."""
        yield one.is_unsure
        yield one.confidence < self.confidence
        for cut in self.distances:
            yield one.distance is not None and one.distance > cut
        if self.near is not None:
            yield one.distance is not None and one.distance < self.near
            # Nothing to bet on beside held-out pictures; beside far ones that were accepted it is.
            yield one.distance is not None and one.distance <= self.distances[-1]
        for label in self.classes:
            yield one.label == label
            yield one.label != label
        if self.others:
            yield one.label not in self.classes


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What served pictures are compared with.

    Attributes:
        cuts: See ``Cuts``.
        counts: Pictures with each mark.
        num: Pictures in all.
    """

    cuts: Cuts
    counts: tuple[int, ...]
    num: int

    @classmethod
    def of(cls, observations: Sequence[Observation]) -> "Reference | str":
        """The reference that held-out pictures make; a string says why they make none."""
        if len(observations) < _MIN_HELD_OUT:
            return f"{len(observations)} held-out pictures, expected at least {_MIN_HELD_OUT}"
        distances = sorted(one.distance for one in observations if one.distance is not None)
        is_measured = len(distances) == len(observations)
        numbers: dict[str, int] = {}
        for one in observations:
            numbers[one.label] = numbers.get(one.label, 0) + 1
        ranked = sorted(numbers, key=lambda label: (-numbers[label], label))
        cuts = Cuts(
            confidence=_percentile(sorted(one.confidence for one in observations), 0.1),
            distances=(_percentile(distances, 0.5), _percentile(distances, 0.9)) if is_measured else (),
            near=_percentile(distances, 0.1) if is_measured else None,
            classes=tuple(ranked[:_MAX_CLASSES]),
            others=len(ranked) > _MAX_CLASSES,
        )
        return cls(cuts=cuts, counts=_count(cuts, observations), num=len(observations))

    def bounds(self, tolerance: float) -> list[float]:
        """The most that each share can be under the null hypothesis."""
        misses = _MISSES / len(self.counts)
        return [min(1.0, _upper_bound(count, self.num, misses) + tolerance) for count in self.counts]

    def to_dict(self) -> dict[str, Any]:
        """The reference as plain values."""
        return {**asdict(self.cuts), "counts": list(self.counts), "num": self.num}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The reference of ``to_dict``.

        Raises:
            ConfigError: It is none.
        """
        try:
            given = {one.name: values[one.name] for one in fields(Cuts)}
            given |= {"distances": tuple(given["distances"]), "classes": tuple(given["classes"])}
            found = cls(cuts=Cuts(**given), counts=tuple(values["counts"]), num=values["num"])
            fits = len(found.counts) == len(found.cuts.marks()) and found.num >= 1
            good = fits and all(type(one) is int and 0 <= one <= found.num for one in found.counts)
        except (KeyError, TypeError) as error:
            raise ConfigError(f"drift reference: expected what `Reference.to_dict` gives: {error}") from error
        if not good:
            raise ConfigError("drift reference: expected as many counts as marks, none above their number")
        return found


class Detector:
    """The bets of one stream of pictures.

    Args:
        bounds: See ``Reference.bounds``.
        weights: Share of the wealth that goes to the bets on each mark; they sum to at most 1.
    """

    def __init__(self, bounds: Sequence[float], weights: Sequence[float]) -> None:
        self._bets = [
            (
                place,
                math.log(weight / len(_BETS)),
                math.log((bound + (1.0 - bound) * part) / bound),
                math.log(1.0 - part),
            )
            for place, (bound, weight) in enumerate(zip(bounds, weights, strict=True))
            if bound < _MOST
            for part in _BETS
        ]
        self._wealth = [0.0] * len(self._bets)

    def settle(self, counts: Sequence[int], num: int, power: float = 1.0) -> None:
        """Take in ``num`` pictures, of which ``counts`` have each mark; their factors get ``power``."""
        for number, (place, _, gain, loss) in enumerate(self._bets):
            count = counts[place]
            won = count * gain + (num - count) * loss
            self._wealth[number] = max(self._wealth[number], 0.0) + power * won

    def log_wealth(self, num_marks: int) -> list[float]:
        """Logarithm of the weighted wealth of the bets on each mark; minus infinity where nothing is bet."""
        found = [-math.inf] * num_marks
        for (place, weight, _, _), wealth in zip(self._bets, self._wealth, strict=True):
            found[place] = _log_add(found[place], weight + wealth)
        return found


class _Novelty:
    """How much of a picture is news after the one before: about 1 of independent ones, 1/k of k in a row.

    Args:
        reference: Independent pictures.
    """

    def __init__(self, reference: Reference) -> None:
        shares = [count / reference.num for count in reference.counts]
        self._expected = sum(2.0 * share * (1.0 - share) for share in shares)
        self._share = 1.0
        self._last: tuple[bool, ...] | None = None

    @property
    def power(self) -> float:
        """Of the factors of the pictures that come next."""
        return min(1.0, max(_LEAST, self._share))

    def add(self, rows: Sequence[tuple[bool, ...]]) -> None:
        """Take in the marks of pictures that came in this order."""
        for row in rows:
            if self._last is not None and self._expected > 0.0:
                changes = sum(map(operator.ne, self._last, row))
                self._share += (changes / self._expected - self._share) / _MEMORY
            self._last = row


class Watch:
    """Watches one task: bets, and shares of the recent pictures.

    Args:
        reference: What it is compared with.
        tolerance: Change in total variation that is no drift, such as another mix of classes.
        run_length: Mean number of pictures to a false alarm.

    Attributes:
        num_seen: Pictures that were seen.
        alarm_at: Pictures that were seen when the alarm was raised; None without one.
        alarm_signals: Signals that raised it.
    """

    def __init__(
        self, reference: Reference, *, tolerance: float = TOLERANCE, run_length: float = RUN_LENGTH
    ) -> None:
        self.reference = reference
        self.marks = reference.cuts.marks()
        self.num_seen = 0
        self.alarm_at: int | None = None
        self.alarm_signals: tuple[str, ...] = ()
        self._limit = math.log(run_length)
        bounds = reference.bounds(tolerance)
        self._detector = Detector(bounds, _weights(self.marks, bounds))
        self._novelty = _Novelty(reference)
        self._blocks = [([0] * len(self.marks), 0)] * 2

    def see(self, observations: Sequence[Observation]) -> bool:
        """Take in pictures in their order; returns whether an alarm was raised by them."""
        had_alarm = self.alarm_at is not None
        for start in range(0, len(observations), _CHUNK):
            rows = [tuple(self.reference.cuts.find(one)) for one in observations[start : start + _CHUNK]]
            counts = tuple(map(sum, zip(*rows, strict=True)))
            self.num_seen += len(rows)
            self._add_recent(counts, len(rows))
            self._detector.settle(counts, len(rows), self._novelty.power)
            self._novelty.add(rows)
            if self.alarm_at is None and self.evidence >= 1.0:
                self.alarm_at, self.alarm_signals = self.num_seen, self._find_signals()
        return self.alarm_at is not None and not had_alarm

    @property
    def evidence(self) -> float:
        """Logarithm of all wealth as a share of the alarm's; an alarm is raised at 1."""
        total = -math.inf
        for one in self._detector.log_wealth(len(self.marks)):
            total = _log_add(total, one)
        return max(0.0, total / self._limit)

    @property
    def recent(self) -> Reference:
        """The last 500 to 1,000 pictures, as a reference for those that come."""
        counts = tuple(map(sum, zip(*(counts for counts, _ in self._blocks), strict=True)))
        return Reference(cuts=self.reference.cuts, counts=counts, num=sum(num for _, num in self._blocks))

    def _find_signals(self) -> tuple[str, ...]:
        """Signals of the marks without which there was no alarm, or of the mark with the most wealth."""
        wealth = self._detector.log_wealth(len(self.marks))
        least = max(wealth) - 3.0
        found = (mark.partition(":")[0] for mark, one in zip(self.marks, wealth, strict=True) if one >= least)
        return tuple(dict.fromkeys(found))

    def _add_recent(self, counts: Sequence[int], num: int) -> None:
        before, seen = self._blocks[-1]
        if seen >= _BLOCK:
            self._blocks = [self._blocks[-1], ([0] * len(self.marks), 0)]
            before, seen = self._blocks[-1]
        added = [one + other for one, other in zip(before, counts, strict=True)]
        self._blocks[-1] = added, seen + num


def _count(cuts: Cuts, observations: Sequence[Observation]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*map(cuts.find, observations), strict=True)))


def _weights(marks: Sequence[str], bounds: Sequence[float]) -> list[float]:
    """Equal shares of the wealth to the signals that can be bet on, and within each to its marks."""
    of_signal: dict[str, int] = {}
    for mark, bound in zip(marks, bounds, strict=True):
        signal = mark.partition(":")[0]
        of_signal[signal] = of_signal.get(signal, 0) + (bound < _MOST)
    num = sum(number > 0 for number in of_signal.values())
    return [1.0 / (max(1, num) * max(1, of_signal[mark.partition(":")[0]])) for mark in marks]


def _upper_bound(count: int, num: int, misses: float) -> float:
    """Upper confidence bound of a share, by H. Chernoff's inequality for binomial counts."""
    share, limit = count / num, math.log(1.0 / misses) / num
    low, high = share, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _divergence(share, middle) < limit else (low, middle)
    return high


def _divergence(share: float, other: float) -> float:
    """Kullback-Leibler divergence of two coins; ``other`` is strictly between 0 and 1, or above ``share``."""
    if other >= 1.0:
        return math.inf if share < 1.0 else 0.0
    found = 0.0 if share == 0.0 else share * math.log(share / other)
    return found + (0.0 if share == 1.0 else (1.0 - share) * math.log((1.0 - share) / (1.0 - other)))


def _log_add(one: float, other: float) -> float:
    high, low = max(one, other), min(one, other)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def _percentile(ranked: Sequence[float], share: float) -> float:
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]
