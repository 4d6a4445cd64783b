"""Stop strings end visible text, and never a call, whoever writes it and however."""

from __future__ import annotations

from typing import Any

import pytest

from server.engine.text import TextAssembler
from server.services.formats import chat_format
from server.services.formats.base import Rendered
from server.services.formats.harmony import HIDDEN, HarmonyParser
from server.services.formats.syntax import Call
from server.services.formats.template_format import HarmonyFormat, TemplateFormat
from tests.fakes import model_info

from .test_rendering import HELLO, HERMES, SPECIAL, made
from .told import ask, llama_cpp_source, read, told, valid

STOPS = ("{", "}", '"', "\n", ",", "`", "[", "get", "city", ">", "=", " ")
ARGUMENTS = {"city": "Paris, \n`{get}`"}
LLAMA = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}"
    '{"name": "{{ c.function.name }}", "parameters": {{ c.function.arguments | tojson }}}'
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant{% endif %}"
)
_CALL = '{"name": "get_weather", "arguments": {"city": "Paris, \\n`{get}`"}}'


def said(rendered: Rendered, text: str, *stops: str, size: int = 1) -> str:
    """What the engine lets out of a model's answer."""
    assembler = TextAssembler(stops, rendered.hidden, rendered.hidden_start)
    pieces = [text.encode()[i : i + size] for i in range(0, len(text.encode()), size)]
    return "".join(map(assembler.push, pieces)) + assembler.finish()


def calls(rendered: Rendered, text: str) -> list[tuple[str, Any]]:
    return valid(told(read(rendered.parser(), [text]))["calls"])


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    "text",
    [
        _CALL,
        f"```json\n{_CALL}\n```",
        f"\n\n[{_CALL}]",
        f"<think>hm</think>\n\n{_CALL}",
        _CALL.replace("arguments", "parameters").replace("name", "function"),
        f"Well:\n<tool_call>\n{_CALL}\n</tool_call>\n<tool_call>\n{_CALL}\n</tool_call>",
    ],
)
def test_a_call_is_whole_without_its_tags_too(text: str, size: int) -> None:
    rendered = made(HERMES).render(HELLO, ask())
    for stop in STOPS:
        if stop not in text.partition("<tool_call>")[0] or not text.startswith("Well"):
            assert said(rendered, text, stop, size=size) == text
    assert calls(rendered, text)[0] == ("get_weather", ARGUMENTS)


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_gpt_oss_stops_in_what_is_for_the_user_only(size: int) -> None:
    rendered = Rendered((), lambda: HarmonyParser({}), hidden=HIDDEN)
    thought = "<|channel|>analysis<|message|>a STOP b<|end|>"
    call = "<|channel|>commentary to=functions.f json<|message|>STOP<|call|>"
    other = " to=functions.f<|channel|>commentary json<|message|>STOP<|call|>"
    for hidden in (thought, f"{thought}<|start|>assistant{thought}", thought + call, call, other):
        assert said(rendered, hidden, "STOP", size=size) == hidden
    for before in ("", f"{thought}<|start|>assistant", f"{thought}<|start|>assistant{thought}"):
        text = f"{before}<|channel|>final<|message|>one STOP two"
        assert said(rendered, text, "STOP", size=size) == text[: -len("STOP two")]


@pytest.mark.parametrize("tag", ["", "<|python_tag|>", "\n\n"])
@pytest.mark.parametrize("lenient", [True, False])
def test_llama_3_calls_are_whole(tag: str, lenient: bool) -> None:
    rendered = made(LLAMA).render(HELLO, ask(lenient=lenient))
    text = tag + _CALL.replace("arguments", "parameters")
    assert calls(rendered, text) == [("get_weather", ARGUMENTS)]
    for stop in STOPS:
        assert said(rendered, text, stop) == text


@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize(
    ("text", "stop", "visible"),
    [
        ("Hello\nthere", "\n", "Hello"),
        ("```python\nprint(1)\n```", "```", ""),
        ('{"name": "Bob"}', "}", '{"name": "Bob"'),
        ('{"name": "get_weather"}', "}", '{"name": "get_weather"'),
        ('{"name": "get_weather', "name", '{"'),
        ("\n\nHello", "\n\n", ""),
        ("[1]", "]", "[1"),
        (f"I call {_CALL}", "{", "I call "),
        ("<think>a\nb</think>c\nd", "\n", "<think>a\nb</think>c"),
    ],
)
def test_text_that_is_no_call_ends_at_its_stop(
    text: str, stop: str, visible: str, size: int
) -> None:
    assert said(made(HERMES).render(HELLO, ask()), text, stop, size=size) == visible


def test_what_cannot_begin_a_call_is_not_held() -> None:
    rendered = made(HERMES).render(HELLO, ask())
    assembler = TextAssembler(("STOP",), rendered.hidden, rendered.hidden_start)
    assert assembler.push(b'{"na') == ""
    assert assembler.push(b'med": ') == '{"named": '
    assert assembler.push(b"1}") == "1}"


def test_a_bare_call_that_cannot_be_one_is_text() -> None:
    for wish in (ask("none"), ask(lenient=False)):
        assert said(made(HERMES).render(HELLO, wish), _CALL, ":") == '{"name"'


def test_every_published_family_keeps_its_calls() -> None:
    seen = set()
    for path in sorted((llama_cpp_source() / "models" / "templates").glob("*.jinja")):
        if path.stem == "muse-glimmer":  # needs what no client sends
            continue
        format = chat_format(model_info(chat_template=path.read_text(), special_tokens=SPECIAL))
        assert isinstance(format, TemplateFormat)
        rendered, syntax = format.render(HELLO, ask()), format.family.syntax
        text = syntax.write([Call("get_weather", ARGUMENTS)])
        if isinstance(format, HarmonyFormat):
            text = f"<|channel|>commentary to=functions.get_weather json<|message|>{_CALL}<|call|>"
        elif rendered.prompt[-1].text.endswith(syntax.trigger):
            text = text.removeprefix(syntax.trigger)
        opened = [closer for opener, closer in rendered.hidden if not opener]
        text = "".join(opened) + text
        for stop in STOPS:
            assert said(rendered, text, stop) == text, path.stem
        seen.add(format.family.name)
    assert len(seen) > 25
