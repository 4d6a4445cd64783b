"""Whatever a compiled schema lets through validates; and three hundred pydantic models compile."""

from __future__ import annotations

import json
import random
import time
from statistics import quantiles

import jsonschema
import llguidance
import pydantic
import pytest

from server.core.errors import InvalidRequest
from server.services.grammars import json_body

from . import schemas
from .acceptance import TOKENIZER, matcher, walk
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


def test_keywords_in_any_combination_are_enforced_or_refused() -> None:
    compiled = 0
    for seed in range(400):
        schema = schemas.schema(seed)
        try:
            body = json_body(schema, param="response_format")
        except InvalidRequest:
            continue
        grammar = llguidance.LLMatcher(TOKENIZER, f"start: body\n{body}", log_level=0)
        if grammar.is_error():
            reason = grammar.get_error()
            assert "Unsatisfiable" in reason or "circular" in reason or "Properties" in reason
            continue
        compiled += 1
        validator = jsonschema.Draft202012Validator(schema)
        rng = random.Random(seed)
        for _ in range(WALKS):
            text = walk(grammar, rng, limit=1500)
            if text is not None:
                assert validator.is_valid(json.loads(text)), f"seed {seed}: {text}\n{schema}"
    assert compiled > 200
