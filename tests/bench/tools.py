"""`python -m tests.bench.tools`: small tool tasks done by Ingle and by llama-server.

Both get the same file, requests and greedy sampling, one after the other; forty tasks with five
tools offered each, asked with `tool_choice` auto, required and naming the tool that does it. Before
that, what the model writes to the same prompt, left to itself: the calls a person would see in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import openai

from server.bench.run import Server
from tests.model.tool_score import WAYS, Answer, Score, Way, ask, score
from tests.model.tool_tasks import FIRST, SECOND

from .machine import about, linked_model, peer_binaries
from .servers import ingle, llama_server

SETS = {"first 20": FIRST, "second 20": SECOND}
CTX = 2048
Answers = dict[tuple[str, Way], list[Answer]]
Scores = dict[tuple[str, Way], Score]
Sides = dict[str, AbstractAsyncContextManager[Server]]


def main() -> None:
    options = _options()
    # Not measured in seconds: beside other work, threads that spin at barriers take minutes.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    binaries = peer_binaries(options.peer_build) if options.peer_build else None
    with tempfile.TemporaryDirectory(prefix="ingle-tools-") as folder:
        home = Path(folder)
        model = linked_model(options.model, home)
        threads = len(os.sched_getaffinity(0))
        words = ["--slots", "1", "--ctx", str(CTX), "--threads", str(threads)]
        sides: Sides = {"ingle": ingle(str(model), words, home)}
        if binaries:
            binary = binaries / "llama-server"
            sides["llama-server"] = llama_server(
                binary, model, slots=1, context=CTX, threads=threads
            )
        answers = asyncio.run(_all(sides, options.ways))
        told = about(model, binaries) if binaries else {"model": model.name}
    scores = {side: _scores(given) for side, given in answers.items()}
    print(f"\n{markdown(scores)}")
    if options.out:
        options.out.write_text(json.dumps(_as_dict(told, answers), indent=2) + "\n")


async def _all(sides: Sides, ways: Sequence[Way]) -> dict[str, Answers]:
    answers = {}
    for side, running in sides.items():
        async with running as server:
            answers[side] = await asyncio.to_thread(_answers, side, server, ways)
    return answers


def _answers(side: str, server: Server, ways: Sequence[Way]) -> Answers:
    at = server.endpoint
    url = f"http://{at.host}:{at.port}{at.prefix}"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        found: Answers = {}
        for name, tasks in SETS.items():
            for way in ways:
                found[name, way] = [ask(client, server.model, task, way) for task in tasks]
                print(f"{side}, {name}, {way}: {score(found[name, way])}", flush=True)
    return found


def _scores(answers: Answers) -> Scores:
    return {key: score(given) for key, given in answers.items()}


def markdown(scores: dict[str, Scores]) -> str:
    """Tasks done right; and answers that hold valid calls, or nothing but calls of the named."""
    lines = [
        f"| tasks | tool_choice | {' | '.join(scores)} |",
        f"|---|---|{'---|' * len(scores)}",
    ]
    for name, way in next(iter(scores.values())):
        cells = [_cell(given[name, way], way) for given in scores.values()]
        title = "– (its own text)" if way == "text" else way
        lines.append(f"| {name} | {title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(made: Score, way: Way) -> str:
    called = f"{made.named} the named" if way == "named" else f"{made.valid} valid"
    return f"{made.right} right, {called}"


def _as_dict(told: dict[str, Any], answers: dict[str, Answers]) -> dict[str, Any]:
    rows: Sequence[dict[str, Any]] = [
        {
            "side": side,
            "tasks": name,
            "tool_choice": way,
            "question": one.task.question,
            "right": one.right,
            "finish_reason": one.finish,
            "calls": one.calls,
            "text": one.text,
        }
        for side, given in answers.items()
        for (name, way), several in given.items()
        for one in several
    ]
    return {"about": told, "answers": rows}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.tools",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="a name or a .gguf file")
    parser.add_argument(
        "--peer-build", type=Path, help="script that builds llama-server; prints its folder last"
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--out", type=Path, help="a file for all answers, as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
