"""The scheduler against a simulated runner that knows what every slot holds."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.core.config import SchedulerConfig
from server.core.plan import MemoryTraits, StepResult, Trim
from server.core.types import GenerateRequest
from server.engine.scheduler import Scheduler
from server.engine.sequence import Sequence
from tests.fakes import Machine

from .simulation import Course, Job, Simulation, saying

ALL_TRAITS = [
    MemoryTraits(trim=t, copy=c, state_bytes=20 * (not t))
    for t in (True, False)
    for c in (True, False)
]

CONTEXT = 288
"""Some of the generated jobs reach it."""


def _words(count: int, family: int = 0) -> tuple[int, ...]:
    return tuple(range(family * 10_000, family * 10_000 + count))


@st.composite
def jobs(draw: st.DrawFn) -> list[Job]:
    """Prompts of a few families, sharing prefixes of any length, arriving whenever."""
    made = []
    for number in range(draw(st.integers(1, 12))):
        shared = draw(st.sampled_from([0, 5, 40, 120, 200]))
        tail = draw(st.sampled_from([0, 1, 7, 60]))
        own = _words(tail, family=50 + number)
        family = draw(st.integers(1, 3))
        made.append(
            Job(
                prompt=(_words(shared, family) + own) or (family,),
                most=draw(st.sampled_from([1, 2, 10, 40])),
                scope=draw(st.sampled_from(["", "", "other"])),
                at=draw(st.sampled_from([0.0, 0.0, 0.3, 1.0, 5.0])),
                cancel_after=draw(st.sampled_from([None, None, None, 0.0, 0.2, 2.0])),
                period=draw(st.sampled_from([10_000, 6])),
                forced=draw(st.sampled_from([0, 0, 3, 40])),
            )
        )
    return made


@settings(max_examples=150)
@given(
    jobs(),
    st.integers(1, 5),
    st.sampled_from(ALL_TRAITS),
    st.builds(
        SchedulerConfig,
        target_step_ms=st.sampled_from([1.0, 50.0, 200.0, 5000.0]),
        max_step_tokens=st.sampled_from([16, 33, 512]),
        prefix_cache_bytes=st.sampled_from([0, 400, 10_000]),
    ),
    st.sampled_from([None, None, 1, 3]),
)
def test_every_request_ends_with_its_own_tokens(
    work: list[Job],
    slots: int,
    traits: MemoryTraits,
    config: SchedulerConfig,
    refuse_every: int | None,
) -> None:
    simulation = Simulation(
        work,
        slots=slots,
        context=CONTEXT,
        traits=traits,
        config=config,
        refuse_every=refuse_every,
    )
    for course in simulation.run():
        cancelled = course.job.cancel_after is not None
        limit = min(course.job.most, CONTEXT - len(course.job.prompt))
        assert cancelled or course.sequence.generated == limit
        assert course.sequence.cached + course.prefilled == len(course.job.prompt) or cancelled
        assert traits.copy or not simulation.copies


@given(jobs())
def test_a_request_reuses_only_what_its_own_scope_computed(work: list[Job]) -> None:
    """The simulation checks the scope of every cell; here, that a lone scope finds nothing."""
    lonely = Job(prompt=_words(150, family=1), scope="lonely", most=3, at=0.1)
    assert Simulation([*work, lonely]).run()[-1].sequence.cached == 0


@pytest.mark.parametrize("count", [2, 8])
def test_identical_prompts_together_cost_one_prefill(count: int) -> None:
    simulation = Simulation([Job(_words(750), most=4)] * count, slots=count)
    courses = simulation.run()
    assert sum(course.prefilled for course in courses) == 750 + (count - 1)
    assert simulation.scheduler.reuse.merge == (count - 1) * 749
    assert simulation.copies == count - 1


def test_more_identical_prompts_than_slots_cost_one_prefill() -> None:
    courses = Simulation([Job(_words(750), most=4)] * 8, slots=3).run()
    assert sum(course.prefilled for course in courses) == 750 + 7


def test_a_shared_prefix_is_computed_once_whatever_follows_it() -> None:
    work = [Job(_words(700) + _words(50, family=1 + i), most=2) for i in range(6)]
    courses = Simulation(work, slots=6).run()
    assert sum(course.prefilled for course in courses) == 700 + 6 * 50


def test_other_scopes_compute_the_same_prompt_again() -> None:
    work = [Job(_words(500), scope="a"), Job(_words(500), scope="b")]
    assert [course.prefilled for course in Simulation(work).run()] == [500, 500]


def test_the_next_turn_computes_only_what_is_new() -> None:
    first = Job(_words(300), most=20)
    simulation = Simulation([first])
    answered = simulation.run()[0].expected
    second = Job((*answered, *_words(10, family=3)), at=100.0)
    after = Simulation([first, second], slots=2)
    course = after.run()[1]
    assert course.sequence.cached == 300 + 19
    assert course.prefilled == 1 + 10


@pytest.mark.parametrize("traits", [t for t in ALL_TRAITS if not t.trim], ids=str)
def test_memory_that_cannot_trim_reuses_whole_slots_only(traits: MemoryTraits) -> None:
    whole, cut = Job(_words(200), most=1), Job(_words(150) + _words(60, family=1), at=50.0)
    longer = Job(_words(260), at=100.0)
    courses = Simulation([whole, cut], slots=1, traits=traits).run()
    assert courses[1].sequence.cached == 0
    courses = Simulation([whole, longer], slots=1, traits=traits).run()
    assert courses[1].sequence.cached == 200


def test_memory_that_cannot_copy_still_reuses_its_slot() -> None:
    traits = MemoryTraits(copy=False)
    first = Job(_words(200), most=300)
    meanwhile, later = Job(_words(210), most=1, at=1.0), Job(_words(220), at=50.0)
    courses = Simulation([first, meanwhile, later], slots=2, traits=traits).run()
    assert courses[0].ended_at is not None and courses[0].ended_at > 1.0
    assert [course.sequence.cached for course in courses] == [0, 0, 210]


def test_a_long_prompt_does_not_freeze_a_stream() -> None:
    """Once the machine is known, gaps keep to the target; the prompt still gets most of it."""
    stream = Job(_words(20), most=1500)
    warm = [Job(_words(300, family=2), at=0.5), Job(_words(300, family=3), at=3.0)]
    long = Job(_words(3000, family=1), at=6.0)
    courses = Simulation([stream, *warm, long]).run()
    gaps = [b - a for a, b in _pairs(courses[0].tokens_at) if b > 6.0]
    assert max(gaps) < 0.2 * 1.15
    assert _first_token(courses[-1]) < 3000 * 0.003 * 1.6
    assert sum(gap > 0.1 for gap in gaps) > 20, "the prompt arrived too late to matter"


def test_short_prompts_pass_a_long_one_but_do_not_starve_it() -> None:
    long = Job(_words(2000, family=1), most=1)
    short = [Job(_words(60, family=2 + i), most=3, at=0.1 * i) for i in range(600)]
    courses = Simulation([long, *short], slots=8, machine=Machine(token=0.0018)).run()
    assert _first_token(courses[1]) < _first_token(courses[0])
    assert _first_token(courses[0]) < 50 < 60, "it waited for all the short ones"
    assert max(map(_first_token, courses[1:])) < 30


def test_a_prompt_gets_on_even_where_no_piece_fits_beside_the_streams() -> None:
    stream, prompt = Job(_words(20), most=200), Job(_words(100, family=1), at=0.5)
    config = SchedulerConfig(target_step_ms=1.0)
    courses = Simulation([stream, prompt], config=config, machine=Machine(token=0.02)).run()
    assert courses[1].tokens_at[0] < courses[0].tokens_at[60]


def test_who_comes_while_a_long_prompt_is_read_does_not_wait_for_all_of_it() -> None:
    """On a slow machine 512 tokens take half a minute."""
    warm = [Job(_words(100, family=2 + i), at=20.0 * i) for i in range(6)]
    long, short = Job(_words(3000, family=1), at=200.0), Job(_words(20), at=201.0)
    machine = Machine(token=0.06)
    courses = Simulation([*warm, long, short], machine=machine).run()
    assert _first_token(courses[-1]) < 64 * 0.06 * 2
    assert _first_token(courses[-2]) < 3000 * 0.06 * 1.1


def test_many_streams_of_forced_tokens_fit_in_a_step() -> None:
    """That a step holds no more than it may is checked in the simulation."""
    work = [Job(_words(10, family=1 + i), most=100, forced=40) for i in range(64)]
    assert all(course.sequence.generated == 100 for course in Simulation(work, slots=64).run())


def test_a_prompt_gets_its_turn_beside_a_stream_of_forced_tokens() -> None:
    stream = Job(_words(20), most=3000, forced=15)
    prompt = Job(_words(1500, family=1), at=0.5)
    courses = Simulation([stream, prompt]).run()
    assert _first_token(courses[1]) < 1500 * 0.003 * 1.7


@pytest.mark.parametrize(("held", "filled"), [(100, True), (600, False)])
def test_a_gap_is_filled_where_little_is_looked_back_on(held: int, filled: bool) -> None:
    """The second of four streams ends early; what it leaves is the gap."""
    work = [Job(_words(20, family=1 + i), most=200) for i in range(4)]
    work[1] = Job(_words(held, family=9), most=2)
    simulation = Simulation(work, slots=4)
    simulation.run()
    assert simulation.fillers > 100 if filled else not simulation.fillers


def test_a_gap_is_bridged_with_the_prompt_that_is_read_there() -> None:
    streams = [Job(_words(20, family=1 + i), most=400) for i in range(4)]
    streams[1] = replace(streams[1], most=3)
    prompt = Job(_words(1500, family=9), at=0.5)
    simulation = Simulation([*streams, prompt], slots=4)
    simulation.run()
    assert simulation.bridged > 3


def test_every_turn_of_more_conversations_than_slots_is_found_again() -> None:
    """What a turn computes is what is new in it, and the last token said before."""
    count, turns, said, new = 12, 4, 30, 60
    work: list[Job] = []
    for turn in range(turns):
        for number in range(count):
            own = _words(new, family=1 + len(work))
            if turn:
                before = len(work) - count
                own = (*work[before].prompt, *saying(before, said), *own)
            work.append(Job(own, most=said, at=turn * 1000.0 + number / 100))
    config = SchedulerConfig(prefix_cache_bytes=10**6)
    courses = Simulation(work, slots=8, config=config).run()
    for number, course in enumerate(courses):
        turn = number // count
        assert course.sequence.cached == (turn * (new + said) - 1 if turn else 0)


def test_a_cancelled_prompt_leaves_its_slot_and_its_tokens_to_the_next() -> None:
    first = Job(_words(600), most=5, cancel_after=0.0001)
    simulation = Simulation([first, Job(_words(600), at=1.0)], slots=1)
    courses = simulation.run()
    assert courses[0].tokens_at == [] and courses[0].prefilled > 100
    assert courses[1].sequence.cached == courses[0].prefilled


def test_a_cancelled_waiting_request_never_gets_a_slot() -> None:
    running = Job(_words(50), most=100)
    courses = Simulation([running, replace(running, cancel_after=0.05)], slots=1).run()
    assert courses[1].prefilled == 0 and courses[1].sequence.slot is None


def test_those_waiting_for_a_cancelled_prefill_go_on_without_it() -> None:
    """The donor of an in-flight merge goes away: what it computed still counts, once."""
    donor = Job(_words(2000), most=5, cancel_after=1.0)
    courses = Simulation([donor, *[Job(_words(2000), most=2)] * 3]).run()
    computed = sum(course.prefilled for course in courses)
    assert 2000 <= computed <= 2000 + 3
    assert 0 < courses[0].prefilled < 2000


def test_a_dropped_sequence_leaves_an_empty_slot() -> None:
    """What a failed row wrote is unknown: the slot is cleared before anyone reuses it."""
    scheduler = Scheduler(SchedulerConfig(), MemoryTraits(), slots=1, context=64)
    first, second = (
        Sequence(GenerateRequest(name, ()), list(range(40)), 0.0) for name in ("first", "second")
    )
    scheduler.add(first)
    plan, _ = scheduler.schedule(0.0)
    assert scheduler.update(plan, StepResult({}, 0.1, failed={0: "lost"})) == []
    scheduler.drop(first, 0.1)
    scheduler.add(second)
    plan, started = scheduler.schedule(0.2)
    assert plan.memory == (Trim(0, 0),)
    assert [sequence.cached for sequence in started] == [0]
    assert plan.rows[0].position == 0


def test_an_idle_scheduler_plans_nothing() -> None:
    scheduler = Scheduler(SchedulerConfig(), MemoryTraits(), slots=2, context=64)
    plan, started = scheduler.schedule(0.0)
    assert (plan.rows, plan.memory, started) == ((), (), [])


def test_reused_tokens_are_counted_by_where_they_were() -> None:
    work = [
        Job(_words(200), most=1),
        Job(_words(300), most=60, at=10.0),
        Job(_words(290), most=1, at=12.0),
    ]
    simulation = Simulation(work, slots=2)
    simulation.run()
    reuse = simulation.scheduler.reuse
    assert (reuse.slot, reuse.copy, reuse.merge) == (200, 289, 0)


def test_a_slot_that_is_taken_over_can_be_restored_later() -> None:
    first, other = Job(_words(500)), Job(_words(500, family=1), at=10.0)
    config = SchedulerConfig(prefix_cache_bytes=2000)
    simulation = Simulation([first, other, replace(first, at=20.0)], slots=1, config=config)
    assert [course.sequence.cached for course in simulation.run()] == [0, 0, 499]
    assert simulation.scheduler.reuse.snapshot == 499


def test_a_sequence_that_repeats_itself_is_guessed_and_says_the_same() -> None:
    """What it says is checked token by token in the simulation."""
    (course,) = Simulation([Job(_words(20), most=300, period=5)]).run()
    assert course.sequence.generated == 300
    assert 100 < course.accepted <= course.drafted


@pytest.mark.parametrize("config", [SchedulerConfig(draft=False), SchedulerConfig()])
def test_a_sequence_that_does_not_repeat_itself_pays_for_no_guesses(
    config: SchedulerConfig,
) -> None:
    (course,) = Simulation([Job(_words(20), most=300)], config=config).run()
    assert course.drafted == 0


def test_one_key_with_many_requests_does_not_hold_up_another() -> None:
    greedy = [Job(_words(200, family=1 + i), most=20, scope="greedy") for i in range(20)]
    modest = Job(_words(50), most=5, scope="modest", at=1.0)
    courses = Simulation([*greedy, modest], slots=1).run()
    ended = sorted(courses, key=lambda course: course.ended_at or 0.0)
    assert ended.index(courses[-1]) <= 3


def _first_token(course: Course) -> float:
    return course.tokens_at[0] - course.job.at


def _pairs(times: list[float]) -> list[tuple[float, float]]:
    return list(pairwise(times))
