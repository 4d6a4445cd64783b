"""Templates in a process of their own: as good as here, but for those that take too much."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from server.core.errors import InvalidRequest, Overloaded, TemplateError, TemplateTooSlow
from server.services import sandbox
from server.services.formats import chat_format
from server.services.formats.base import Ask
from server.services.rendering import Renderers
from tests.fakes import TEMPLATE, model_info

HELLO = [{"role": "user", "content": "Hello"}]
GIVEN: dict[str, Any] = {"messages": HELLO}
FOR_EVER = (
    "{% set many = range(99999) | list %}"
    "{% for i in many %}{% for j in many %}{% endfor %}{% endfor %}"
)
SQUARE = "{% for m in messages %}{% for n in messages %}{% endfor %}{% endfor %}done"


@pytest.fixture
def renderers() -> Iterator[Renderers]:
    made = Renderers()
    yield made
    made.close()


@pytest.mark.parametrize(
    "given",
    [
        GIVEN,
        {"messages": []},
        {"messages": [{"role": "user", "content": "🦊 é \ud800 \x00 \ue000"}]},
        {"messages": HELLO, "tools": [{"a": [1, 2.5, None, True, {"b": float("inf")}]}]},
        {"messages": [{"role": "user", "content": "word " * 500_000}]},
        {"messages": HELLO * 2000},
    ],
    ids=lambda given: str(given)[:40],
)
def test_it_renders_as_this_process_does(renderers: Renderers, given: dict[str, Any]) -> None:
    source = TEMPLATE + "{{ tools | tojson if tools else '' }}"
    for _ in range(2):
        assert renderers.render(source, given) == sandbox.render(source, given)


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('no system turns') }}",
        "{{ raise_exception('no <end> in\nthis') }}",
        "{{ messages[0].nothing.at_all }}",
        "{% for %}",
        "{{ 1 / 0 }}",
    ],
)
def test_it_refuses_as_this_process_does(renderers: Renderers, source: str) -> None:
    with pytest.raises(TemplateError) as here:
        sandbox.render(source, GIVEN)
    with pytest.raises(TemplateError) as there:
        renderers.render(source, GIVEN)
    assert (there.value.message, there.value.param) == (here.value.message, here.value.param)


def test_a_whole_format_is_found_and_used_over_it(renderers: Renderers) -> None:
    info = model_info(chat_template=TEMPLATE)
    here, there = chat_format(info), chat_format(info, renderers.render)
    assert there.render(HELLO, Ask()).prompt == here.render(HELLO, Ask()).prompt


HOSTILE = {
    "text": "{{ 'x' * 10 ** 9 }}",
    "list": "{{ [1] * 10 ** 9 }}",
    "constant": "{{ 'x' | center(10 ** 9) }}",
    "width": "{{ '%1000000000d' | format(messages | length) }}",
    "format": "{{ '{:1000000000}'.format(messages | length) }}",
    "indent": "{{ messages | tojson(indent=10 ** 9) }}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "doubled": "{% set ns = namespace(x='x') %}{% for i in range(99) %}"
    "{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "nested": "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}"
    "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "joined": "{% set many = range(99999) | list %}{{ many | join(many | join) }}",
    "replaced": "{{ ('x' * 10 ** 6) | replace('', 'y' * 10 ** 6) }}",
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "no range": FOR_EVER,
    "recursion": "{% macro f(x) %}{{ f(x) }}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "tree": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(99) }}",
    "long": "{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}",
    "complaint": "{{ raise_exception('x' * 10 ** 8) }}",
    "lorem": "{{ lipsum(n=10 ** 9) }}",
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_template_takes_neither_time_nor_memory(
    renderers: Renderers, source: str
) -> None:
    renderers.render("{{ messages[0].content }}", GIVEN)
    process = psutil.Process()
    before, started = process.memory_info().rss, time.monotonic()
    with pytest.raises(InvalidRequest, match="chat template") as refused:
        renderers.render(source, GIVEN)
    assert time.monotonic() - started < 1.5 + 0.5, "half a second for the process to start in"
    assert process.memory_info().rss - before < 8 << 20
    assert refused.value.error_code == "invalid_messages" and len(refused.value.message) < 600
    for child in process.children(recursive=True):
        assert child.rlimit(psutil.RLIMIT_AS)[1] in (sandbox.MEMORY, psutil.RLIM_INFINITY)
    assert renderers.render("{{ messages[0].content }}", GIVEN) == "Hello"


def test_a_hostile_template_is_not_probed_again_and_again(renderers: Renderers) -> None:
    started = time.monotonic()
    with pytest.raises(TemplateTooSlow):
        chat_format(model_info(chat_template=FOR_EVER), renderers.render)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "inside",
    [
        "cycler.__init__.__globals__.os.system(%s)",
        "''.__class__.__mro__[1].__subclasses__()[0](%s)",
        "raise_exception.__globals__['json'].__builtins__.open(%s, 'w')",
        "self.__init__.__globals__.__builtins__.open(%s, 'w')",
        "('' | attr('__class__')).mro()[1](%s)",
        "messages.__reduce_ex__(2)[0](%s)",
    ],
)
def test_no_code_is_run(renderers: Renderers, tmp_path: Path, inside: str) -> None:
    marker = tmp_path / "run"
    for argument in (f"'touch {marker}'", f"'{marker}'"):
        with pytest.raises(TemplateError):
            renderers.render("{{ " + inside % argument + " }}", GIVEN)
    assert not marker.exists()


def test_a_template_changes_nothing_of_the_next_rendering(renderers: Renderers) -> None:
    meddling = (
        "{{ messages.append(1) }}{{ messages[0].update(role='x') }}{{ raise_exception.x }}"
        "{% set _ = namespace(a=1) %}"
    )
    for _ in range(2):
        with pytest.raises(TemplateError, match="unsafe"):
            renderers.render(meddling, GIVEN)
    assert renderers.render(TEMPLATE, GIVEN) == sandbox.render(TEMPLATE, GIVEN)


def test_a_conversation_can_be_hostile_too_and_holds_up_no_short_one(renderers: Renderers) -> None:
    """The template is honest, as one that looks for each message's answer."""
    assert renderers.render(SQUARE, GIVEN) == "done"
    ended: list[BaseException] = []

    def flood() -> None:
        try:
            renderers.render(SQUARE, {"messages": HELLO * 20_000})
        except InvalidRequest as error:
            ended.append(error)

    hostile = threading.Thread(target=flood)
    hostile.start()
    took = []
    while hostile.is_alive():
        started = time.monotonic()
        assert renderers.render(SQUARE, GIVEN) == "done"
        took.append(time.monotonic() - started)
    assert isinstance(ended[0], TemplateTooSlow)
    assert len(took) > 10 and max(took) < 0.4


def test_who_cannot_begin_soon_is_told_so(renderers: Renderers) -> None:
    def wait_for_ever() -> None:
        with pytest.raises(TemplateTooSlow):
            renderers.render(FOR_EVER, GIVEN)

    first = threading.Thread(target=wait_for_ever)
    first.start()
    lane = renderers._lane(FOR_EVER, long=False)
    while not lane._free.locked():
        time.sleep(0.001)
    started = time.monotonic()
    with pytest.raises(Overloaded):
        renderers.render(FOR_EVER, GIVEN)
    assert 0.4 < time.monotonic() - started < 1
    assert renderers.render("of another model", GIVEN) == "of another model"
    first.join()


def test_a_process_that_died_is_started_again(renderers: Renderers) -> None:
    assert renderers.render(TEMPLATE, GIVEN)
    for child in psutil.Process().children():
        child.kill()
        child.wait(5)
    assert renderers.render(TEMPLATE, GIVEN)
    renderers.close()
    assert not [c for c in psutil.Process().children() if "sandbox" in " ".join(c.cmdline())]
