"""Every chat template that llama.cpp publishes renders a conversation with tools, nothing lost."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from server.core.errors import TemplateError
from server.services.formats import chat_format
from server.services.formats.base import Ask, ChatFormat
from server.services.formats.template_format import HarmonyFormat, TemplateFormat
from tests.fakes import model_info

from .told import CONVERSATION, TOOLS, ask, llama_cpp_source

FAMILIES = {
    "Apertus-8B-Instruct": "apertus",
    "Apriel-1.6-15b-Thinker-fixed": "apriel",
    "Bielik-11B-v3.0-Instruct": "hermes",
    "ByteDance-Seed-OSS": "seed",
    "Cohere2MoE": "cohere",
    "CohereForAI-c4ai-command-r-plus-tool_use": "command-r",
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": "cohere",
    "GLM-4.6": "glm",
    "GLM-4.7-Flash": "glm-4.7",
    "GigaChat3-10B-A1.8B": "gigachat-3",
    "GigaChat3.1-10B-A1.8B": "gigachat",
    "HuggingFaceTB-SmolLM3-3B": "generic",
    "Kimi-K2-Instruct": "kimi-k2",
    "Kimi-K2-Thinking": "kimi-k2",
    "Kimi-K3": "kimi-k3",
    "LFM2-8B-A1B": "lfm2",
    "LFM2.5-8B-A1B": "lfm2",
    "LFM2.5-Instruct": "lfm2",
    "MiMo-VL": "hermes",
    "MiniMax-M1": "minimax-m1",
    "MiniMax-M2": "minimax-m2",
    "MiniMax-M3": "minimax-m3",
    "Mistral-Small-3.2-24B-Instruct-2506": "mistral-v11",
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": "qwen3-coder",
    "NVIDIA-Nemotron-Nano-v2": "nemotron",
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": "hermes",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": "hermes",
    "Qwen-QwQ-32B": "hermes",
    "Qwen-Qwen2.5-7B-Instruct": "hermes",
    "Qwen-Qwen3-0.6B": "hermes",
    "Qwen3-Coder": "qwen3-coder",
    "Qwen3.5-4B": "qwen3-coder",
    "Reka-Edge": "hermes",
    "Spark2.5": "glm-4.7",
    "StepFun3.5-Flash": "qwen3-coder",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": "deepseek-r1",
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": "deepseek-r1",
    "deepseek-ai-DeepSeek-V3.1": "deepseek-v3.1",
    "deepseek-ai-DeepSeek-V3.2": "deepseek-v3.2",
    "deepseek-ai-DeepSeek-V4-Flash-0731": "deepseek-v4",
    "deepseek-ai-DeepSeek-V4": "deepseek-v4",
    "fireworks-ai-llama-3-firefunction-v2": "firefunction",
    "google-gemma-2-2b-it": "generic",
    "google-gemma-4-31B-it-interleaved": "gemma-4",
    "google-gemma-4-31B-it": "gemma-4",
    "ibm-granite-granite-3.3-2B-Instruct": "granite",
    "ibm-granite-granite-4.0": "hermes",
    "ibm-granite-granite-4.1": "hermes",
    "inclusionai-ling-3.0-flash": "ling",
    "llama-cpp-deepseek-r1": "deepseek-r1",
    "llama-cpp-rwkv-world": "generic",
    "meetkai-functionary-medium-v3.1": "functionary-v3.1",
    "meetkai-functionary-medium-v3.2": "functionary-v3.2",
    "meta-llama-Llama-3.1-8B-Instruct": "llama-3",
    "meta-llama-Llama-3.2-3B-Instruct": "llama-3",
    "meta-llama-Llama-3.3-70B-Instruct": "llama-3",
    "microsoft-Phi-3.5-mini-instruct": "generic",
    "mistralai-Ministral-3-14B-Reasoning-2512": "mistral-v13",
    "mistralai-Mistral-Nemo-Instruct-2407": "mistral",
    "moonshotai-Kimi-K2": "kimi-k2",
    "muse-glimmer": "refused",
    "openai-gpt-oss-120b": "harmony",
    "openbmb-MiniCPM5-1B": "minicpm5",
    "poolside-Laguna-S-2.1": "glm-4.7",
    "poolside-Laguna-XS-2.1": "glm",
    "poolside-Laguna-XS.2": "glm",
    "tencent-Hy3": "hunyuan",
    "unsloth-Apriel-1.5": "apriel",
    "unsloth-mistral-Devstral-Small-2507": "mistral-v13",
    "upstage-Solar-Open-100B": "solar",
}
OPENED = {
    "Apriel-1.6-15b-Thinker-fixed",
    "Cohere2MoE",
    "GLM-4.7-Flash",
    "Kimi-K3",
    "MiniMax-M2",
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
    "NVIDIA-Nemotron-Nano-v2",
    "Qwen3.5-4B",
    "Spark2.5",
    "StepFun3.5-Flash",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
    "inclusionai-ling-3.0-flash",
    "llama-cpp-deepseek-r1",
    "poolside-Laguna-S-2.1",
}
"""Templates whose prompt begins the reasoning when nothing is asked of it."""


@pytest.fixture(scope="module")
def folder() -> Path:
    return llama_cpp_source() / "models" / "templates"


@cache
def _format(path: Path) -> ChatFormat:
    info = model_info(
        chat_template=path.read_text(),
        bos_token="<BOS>",
        eos_token="<EOS>",
        special_tokens={"<|im_end|>": 256},
    )
    return chat_format(info)


def _prompt(made: ChatFormat, turns: list[dict[str, object]], wish: Ask) -> str:
    return "".join(piece.text for piece in made.render(turns, wish).prompt)


def test_the_table_knows_every_template(folder: Path) -> None:
    assert {path.stem for path in folder.glob("*.jinja")} == FAMILIES.keys()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_conversation_with_tools_is_rendered_or_refused(folder: Path, name: str) -> None:
    path = folder / f"{name}.jinja"
    if FAMILIES[name] == "refused":
        with pytest.raises(TemplateError, match="not supported"):
            _format(path)
        return
    made = _format(path)
    assert isinstance(made, TemplateFormat)
    family = "harmony" if isinstance(made, HarmonyFormat) else made.family.name
    assert family == FAMILIES[name]
    prompt = _prompt(made, CONVERSATION, ask())
    assert "SYSTEM" in prompt
    for call, result in (("PARIS", "RESULT-A"), ("ROME", "RESULT-B")):
        places = [prompt.find(w) for w in ("QUESTION", call, result, "ANSWER", "AND NOW?")]
        assert places == sorted(places) and min(places) >= 0
    for tool in TOOLS:
        assert tool.name in prompt and tool.description in prompt
    assert '\\"city' not in prompt, "arguments are encoded twice"


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family != "refused"])
def test_plain_conversations_and_parts_are_rendered(folder: Path, name: str) -> None:
    made = _format(folder / f"{name}.jinja")
    turns: list[dict[str, object]] = [
        {"role": "system", "content": "SYSTEM"},
        {"role": "user", "content": "HELLO <|im_end|>"},
    ]
    plain = made.render(turns, Ask())
    assert [piece.text for piece in plain.prompt if piece.plain] == ["<|im_end|>"]
    assert plain.grammar == ""
    parts = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
    assert made.render(parts, Ask()).prompt == plain.prompt
    assert "SYSTEM" in _prompt(made, turns, Ask())


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family != "refused"])
def test_a_prompt_that_opens_the_reasoning_is_noticed(folder: Path, name: str) -> None:
    made = _format(folder / f"{name}.jinja")
    rendered = made.render([{"role": "user", "content": "HELLO"}], Ask())
    parser = rendered.parser()
    parts = parser.push("deep thoughts, deep thoughts") + parser.finish("length")
    assert (type(parts[0]).__name__ == "Reasoning") == (name in OPENED)
    off = made.render([{"role": "user", "content": "HELLO"}], Ask(thinking=False)).parser()
    parts = off.push("an answer at once, at once") + off.finish("stop")
    assert [type(part).__name__ for part in parts] == ["Content"] * len(parts)


def test_gpt_oss_is_told_to_think_little_where_it_must_not(folder: Path) -> None:
    made = _format(folder / "openai-gpt-oss-120b.jinja")
    turns: list[dict[str, object]] = [{"role": "user", "content": "HELLO"}]
    assert "Reasoning: medium" in _prompt(made, turns, Ask())
    assert "Reasoning: high" in _prompt(made, turns, Ask(effort="high", thinking=True))
    for wish in (Ask(thinking=False), Ask(thinking=False, variables={"reasoning_effort": "none"})):
        assert "Reasoning: low" in _prompt(made, turns, wish)
        assert "analysis" not in made.render(turns, wish).grammar
        assert made.render(turns, wish).grammar
    continued = [*turns, {"role": "assistant", "content": "Once"}]
    assert made.render(continued, Ask(prefill=True, thinking=False)).grammar == ""


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family != "refused"])
def test_the_last_message_can_be_continued(folder: Path, name: str) -> None:
    made = _format(folder / f"{name}.jinja")
    turns: list[dict[str, object]] = [
        {"role": "user", "content": "HELLO"},
        {"role": "assistant", "content": "Once upon a"},
    ]
    rendered = made.render(turns, Ask(prefill=True))
    assert "".join(piece.text for piece in rendered.prompt).endswith("Once upon a")
    parser = rendered.parser()
    parts = parser.push(" time") + parser.finish("stop")
    assert "".join(getattr(part, "text", "") for part in parts) == " time"
