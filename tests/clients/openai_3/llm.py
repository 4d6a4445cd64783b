"""The `llm` tool, with a model of one's own as its documentation says."""

from __future__ import annotations

import json
from pathlib import Path

import llm
import pytest
from click.testing import CliRunner
from llm.cli import cli

from tests.clients.asks import BASE, CALLED, CALLS, MIXED, TOO_LONG, TRIP, TRIP_TEXT, Tools, Trip


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> llm.Model:
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: ingle\n  model_name: echo\n  api_base: {BASE}\n"
        "  supports_schema: true\n  supports_tools: true\n"
    )
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    return llm.get_model("ingle")


both = pytest.mark.parametrize("streaming", [False, True])


@both
def test_chat(model: llm.Model, streaming: bool) -> None:
    answer = model.prompt(MIXED, stream=streaming, temperature=0)
    texts = list(answer)
    assert "".join(texts) == MIXED and (len(texts) > 1) == streaming
    assert answer.usage().output == len(MIXED.encode())


def test_the_command(model: llm.Model) -> None:
    del model
    ran = CliRunner().invoke(cli, ["-m", "ingle", "-o", "temperature", "0", MIXED])
    assert (ran.exit_code, ran.output) == (0, f"{MIXED}\n")


@both
def test_a_tool_loop(model: llm.Model, streaming: bool) -> None:
    tools = Tools()
    chain = model.chain(
        CALLS, tools=[tools.weather, tools.clock], stream=streaming, options={"temperature": 0}
    )
    called, last = chain.responses()
    assert len({call.tool_call_id for call in called.tool_calls()}) == 2
    assert (tools.called, last.text()) == (CALLED, "It is noon")


@both
def test_structured_output(model: llm.Model, streaming: bool) -> None:
    answer = model.prompt(TRIP_TEXT, schema=Trip, stream=streaming, temperature=0)
    assert Trip.model_validate(json.loads(answer.text())) == TRIP
    answer = model.prompt("No.", schema=Trip, stream=streaming, temperature=0)
    assert isinstance(Trip.model_validate(json.loads(answer.text())), Trip)


def test_a_prompt_that_is_too_long(model: llm.Model) -> None:
    with pytest.raises(Exception, match="maximum context length is 4096 tokens"):
        model.prompt(TOO_LONG).text()
