"""A scheduler driven as the worker drives it, against a simulated runner and a simulated clock.

Every step is checked against what the slots really hold; what a test adds are its own questions.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from server.core.config import SchedulerConfig
from server.core.plan import BatchPlan, Copy, MemoryTraits, StepResult
from server.core.types import GenerateRequest
from server.engine.batching import SMALLEST_PIECE, STRETCH, TILE
from server.engine.cost import CostModel
from server.engine.scheduler import Scheduler
from server.engine.sequence import Sequence
from tests.fakes import Machine, SimulatedRunner

OWN_TOKENS = 1_000_000
"""Generated tokens are above: the job's number times this, plus a count."""


@dataclass(frozen=True)
class Job:
    """A request. With a `period` it says the same again and again, with a slip now and then.

    After every sampled token a grammar forces up to `forced` more.
    """

    prompt: tuple[int, ...] = field(repr=False)
    most: int = 1
    scope: str = ""
    at: float = 0.0
    cancel_after: float | None = None
    period: int = 10_000
    forced: int = 0


@dataclass
class Course:
    """What became of a job. Times in simulated seconds."""

    job: Job
    sequence: Sequence
    expected: list[int]
    drafted: int = 0
    accepted: int = 0
    prefilled: int = 0
    skipped: int = 0
    tokens_at: list[float] = field(default_factory=list)
    ended_at: float | None = None


def saying(number: int, count: int) -> list[int]:
    """What job `number` says first, without a `period`."""
    return [_word(number, place, Job.period) for place in range(count)]


def _word(number: int, place: int, period: int) -> int:
    return OWN_TOKENS * (1 + number) + (place % period if place % 11 else 5_000)


class Simulation:
    def __init__(
        self,
        jobs: list[Job],
        *,
        slots: int = 4,
        context: int = 4096,
        traits: MemoryTraits | None = None,
        config: SchedulerConfig | None = None,
        machine: Machine | None = None,
        cost: CostModel | None = None,
        refuse_every: int | None = None,
    ) -> None:
        traits = traits or MemoryTraits()
        self.config = config or SchedulerConfig()
        self.context = context
        self.scheduler = Scheduler(self.config, traits, slots=slots, context=context, cost=cost)
        machine = machine or Machine()
        self.runner = SimulatedRunner(slots, context, traits, machine, refuse_every=refuse_every)
        self.now = 0.0
        self.steps = 0
        self.copies = 0
        self.fillers = 0
        self.bridged = 0
        self.lost = 0
        self._coming = sorted(enumerate(jobs), key=lambda pair: pair[1].at)
        self._count = len(jobs)
        self.courses: dict[str, Course] = {}
        self.traits = traits
        self._in_slot: dict[int, Course] = {}
        self._computed: dict[int, Course] = {}

    def run(self) -> list[Course]:
        """Until every job has ended. Fails when that takes more steps than it ever should."""
        work = sum(len(job.prompt) + job.most for _, job in self._coming)
        while self._coming or self.scheduler.running or self.scheduler.waiting:
            self.step()
            assert self.steps <= 4 * work + 100, "some request never ends"
        return [self.courses[str(number)] for number in range(self._count)]

    def step(self) -> None:
        self._arrive()
        self._cancel()
        plan, started = self.scheduler.schedule(self.now)
        self._check_started(started)
        if not plan.rows:
            assert not self.scheduler.running and not self.scheduler.waiting, "stuck"
            self.now = max(self.now, self._coming[0][1].at) if self._coming else self.now
            assert not plan.memory
            return
        self._check_budget(plan)
        scopes = {slot: course.job.scope for slot, course in self._in_slot.items()}
        prefilling = self._prefilling()
        self._computed = dict(self._in_slot)
        result = self.runner.run(plan, scopes, self._say, self._forced)
        self.copies += sum(isinstance(op, Copy) for op in plan.memory)
        self.now += result.seconds
        self.steps += 1
        for row in plan.rows:
            if row.filler:
                assert row.slot not in self._in_slot, "a filler in a slot that is used"
                self.fillers += 1
                continue
            if row.slot in result.lost:
                self.lost += 1
                continue
            course = self._in_slot[row.slot]
            course.prefilled += len(row.tokens) if course in prefilling else 0
            course.drafted += row.draft
            self.bridged += course in prefilling and plan.kind == "decode"
        for sequence, tokens in self.scheduler.update(plan, result):
            self._advance(self.courses[sequence.id], tokens)
        self._check_memory(plan, result)

    def _arrive(self) -> None:
        while self._coming and self._coming[0][1].at <= self.now:
            number, job = self._coming.pop(0)
            request = GenerateRequest(str(number), (), max_tokens=job.most, scope=job.scope)
            sequence = Sequence(request, list(job.prompt), job.at)
            self.courses[sequence.id] = Course(job, sequence, list(job.prompt))
            self.scheduler.add(sequence)

    def _cancel(self) -> None:
        for course in self.courses.values():
            after = course.job.cancel_after
            if course.ended_at is None and after is not None and course.job.at + after <= self.now:
                assert self.scheduler.find(course.sequence.id) is course.sequence
                self._end(course)

    def _check_started(self, started: list[Sequence]) -> None:
        for sequence in started:
            assert sequence.slot is not None
            assert sequence.slot not in self._in_slot, "a slot used twice"
            assert sequence.cached < sequence.prompt_length, "nothing left to compute"
            self._in_slot[sequence.slot] = self.courses[sequence.id]

    def _decoding(self) -> list[Course]:
        running = (c.sequence for c in self._in_slot.values())
        return [self.courses[s.id] for s in running if s.decoding and not s.paused]

    def _prefilling(self) -> list[Course]:
        """Those whose prompt is not computed yet, down to its last token."""
        return [c for c in self._in_slot.values() if c.sequence.generated == 0]

    def _check_budget(self, plan: BatchPlan) -> None:
        tokens = sum(len(row.tokens) for row in plan.rows)
        assert tokens <= self.config.max_step_tokens
        fillers = sum(row.filler for row in plan.rows)
        assert tokens == plan.decode_tokens + plan.prefill_tokens + plan.draft_tokens + fillers
        decoding, slots = self._decoding(), {row.slot for row in plan.rows}
        skipped = [c for c in decoding if c.sequence.slot not in slots]
        for course in decoding:
            course.skipped = course.skipped + 1 if course in skipped else 0
            assert course.skipped <= 1, "a stream missed two steps in a row"
        if skipped and tokens > SMALLEST_PIECE:
            stretch = STRETCH if tokens <= TILE else 1.0
            cost = self.scheduler.cost
            looked_at = sum(c.sequence.computed + 1 for c in decoding)
            room = stretch * self.config.target_step_ms / 1000
            room -= cost.decode.predict(len(decoding), looked_at)
            assert cost.prefill.predict(tokens, plan.attended) <= room + 1e-9, "over the budget"

    def _check_memory(self, plan: BatchPlan, result: StepResult) -> None:
        """After the step: what each slot holds is the beginning of its sequence, and its own."""
        for row in plan.rows:
            if row.filler or row.slot in result.lost:
                continue
            course, cells = self._computed[row.slot], self.runner.cells[row.slot]
            assert [token for token, _ in cells] == course.expected[: len(cells)], "foreign tokens"
            assert {scope for _, scope in cells} == {course.job.scope}, "a foreign scope's tokens"
            assert course.ended_at is not None or len(cells) == course.sequence.computed
        for slot, cells in zip(self.scheduler.slots, self.runner.cells, strict=True):
            assert slot.tokens == [token for token, _ in cells], "the books are wrong"
        each, more = self.traits.token_bytes, self.traits.state_bytes
        kept = sum(len(cells) * each + more for cells in self.runner.saved.values())
        assert kept == self.scheduler.snapshots.size <= self.config.prefix_cache_bytes

    def _say(self, slot: int, ahead: int) -> int:
        course = self._in_slot[slot]
        return _word(int(course.sequence.id), course.sequence.generated + ahead, course.job.period)

    def _forced(self, slot: int) -> int:
        course = self._in_slot[slot]
        return course.sequence.generated * 7 % (course.job.forced + 1)

    def _advance(self, course: Course, tokens: list[int]) -> None:
        assert not course.sequence.out_of_room(self.context)
        course.accepted += len(tokens) - 1
        for token in tokens:
            if course.job.forced and course.sequence.out_of_room(self.context):
                break
            assert token // OWN_TOKENS == 1 + int(course.sequence.id), "another one's token"
            assert not course.sequence.out_of_room(self.context), "guesses past the limit"
            course.expected.append(token)
            course.sequence.tokens.append(token)
            course.tokens_at.append(self.now)
        if course.sequence.out_of_room(self.context):
            self._end(course)

    def _end(self, course: Course) -> None:
        if course.sequence.slot is not None:
            del self._in_slot[course.sequence.slot]
        self.scheduler.remove(course.sequence, self.now)
        course.ended_at = self.now
