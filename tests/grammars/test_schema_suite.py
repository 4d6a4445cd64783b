"""Three hundred pydantic models: each compiles, and whatever its grammar lets through validates."""

from __future__ import annotations

import random
import time
from statistics import quantiles

import jsonschema
import pydantic
import pytest

from server.services.grammars import json_body

from .acceptance import matcher, walk
from .models import model

SEEDS = range(300)
WALKS = 3
COMPILE_P99_SECONDS = 0.05


@pytest.mark.parametrize("block", range(10))
def test_all_that_the_grammar_allows_validates(block: int) -> None:
    for seed in SEEDS[block::10]:
        made = model(seed)
        schema = made.model_json_schema()
        grammar = matcher(json_body(schema, param="response_format"))
        rng = random.Random(seed)
        texts = [text for _ in range(WALKS) if (text := walk(grammar, rng)) is not None]
        assert texts, f"seed {seed}: no walk ended"
        for text in texts:
            _check(made, schema, text, seed)


def _check(made: type[pydantic.BaseModel], schema: dict[str, object], text: str, seed: int) -> None:
    try:
        made.model_validate_json(text)
    except pydantic.ValidationError as error:
        pytest.fail(f"seed {seed}: {text}\n{error}")
    jsonschema.Draft202012Validator(schema).validate(
        pydantic.TypeAdapter(object).validate_json(text)
    )


def test_compiling_takes_no_time_to_speak_of() -> None:
    seconds = []
    for seed in SEEDS:
        schema = model(seed).model_json_schema()
        start = time.perf_counter()
        matcher(json_body(schema, param="response_format"))
        seconds.append(time.perf_counter() - start)
    p99 = quantiles(seconds, n=100)[98]
    print(f"compile p50 {sorted(seconds)[150] * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms")
    assert p99 < COMPILE_P99_SECONDS
