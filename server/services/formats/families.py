"""The families of models, told by what their templates spell."""

from __future__ import annotations

from msgspec import Struct

from .json_text import JsonArguments
from .keyworded import KeywordArguments
from .syntax import Syntax
from .tagged import TaggedArguments

_JSON = JsonArguments()


class Family(Struct, frozen=True):
    """`marks`: all of them stand in the template. `wrap` are tags around visible text."""

    name: str
    marks: tuple[str, ...]
    syntax: Syntax
    wrap: tuple[str, str] = ("", "")


HERMES = Syntax('<tool_call>\n{"name": "$name", "arguments": $args}\n</tool_call>', _JSON)
LLAMA = Syntax(
    '$(<|python_tag|>$){"name": "$name", "parameters": $args}', _JSON, parallel=False, bare=True
)

GENERIC = Family("generic", (), HERMES)

FAMILIES = (
    Family(
        "kimi-k3",
        ("<|end_of_msg|>", "<|sep|>"),
        Syntax(
            '<|open|>call tool="$name" index="$id"<|sep|>$args<|close|>call<|sep|>',
            TaggedArguments(
                '<|open|>argument key="$key" type="$text"<|sep|>',
                "<|close|>argument<|sep|>",
                text=("string", "number"),
            ),
            begin="<|open|>tools<|sep|>",
            between="",
            end="<|close|>tools<|sep|>",
        ),
        ("<|open|>response<|sep|>", "<|close|>response<|sep|>"),
    ),
    Family(
        "minimax-m3",
        ("]<]minimax[>[", "<invoke name="),
        Syntax(
            ']<]minimax[>[<invoke name="$name">$args]<]minimax[>[</invoke>',
            TaggedArguments("]<]minimax[>[<$key>", "]<]minimax[>[</$key>"),
            begin="]<]minimax[>[<tool_call>\n",
            end="\n]<]minimax[>[</tool_call>",
        ),
    ),
    Family(
        "minimax-m2",
        ("<minimax:tool_call>", "<invoke name="),
        Syntax(
            '<invoke name="$name">\n$args</invoke>',
            TaggedArguments('<parameter name="$key">', "</parameter>\n"),
            begin="<minimax:tool_call>\n",
            end="\n</minimax:tool_call>",
        ),
    ),
    Family(
        "deepseek-v3.2",
        ("DSML", "function_calls"),
        Syntax(
            '<｜DSML｜invoke name="$name">\n$args</｜DSML｜invoke>',
            TaggedArguments(
                '<｜DSML｜parameter name="$key" string="$text">',
                "</｜DSML｜parameter>\n",
                text=("true", "false"),
            ),
            begin="<｜DSML｜function_calls>\n",
            end="\n</｜DSML｜function_calls>",
        ),
    ),
    Family(
        "deepseek-v4",
        ("DSML", "tool_calls"),
        Syntax(
            '<｜DSML｜invoke name="$name">\n$args</｜DSML｜invoke>',
            TaggedArguments(
                '<｜DSML｜parameter name="$key" string="$text">',
                "</｜DSML｜parameter>\n",
                text=("true", "false"),
            ),
            begin="<｜DSML｜tool_calls>\n",
            end="\n</｜DSML｜tool_calls>",
        ),
    ),
    Family(
        "deepseek-r1",
        ("<｜tool▁calls▁begin｜>", "```json"),
        Syntax(
            "<｜tool▁call▁begin｜>function<｜tool▁sep｜>$name\n```json\n$args\n```<｜tool▁call▁end｜>",
            _JSON,
            begin="<｜tool▁calls▁begin｜>",
            end="<｜tool▁calls▁end｜>",
        ),
    ),
    Family(
        "deepseek-v3.1",
        ("<｜tool▁calls▁begin｜>",),
        Syntax(
            "<｜tool▁call▁begin｜>$name<｜tool▁sep｜>$args<｜tool▁call▁end｜>",
            _JSON,
            begin="<｜tool▁calls▁begin｜>",
            between="",
            end="<｜tool▁calls▁end｜>",
        ),
    ),
    Family(
        "kimi-k2",
        ("<|tool_calls_section_begin|>", "<|tool_call_argument_begin|>"),
        Syntax(
            "<|tool_call_begin|>functions.$name:$id<|tool_call_argument_begin|>$args<|tool_call_end|>",
            _JSON,
            begin="<|tool_calls_section_begin|>",
            between="",
            end="<|tool_calls_section_end|>",
        ),
    ),
    Family(
        "solar",
        ("<|tool_call:begin|>", "<|tool_call:args|>"),
        Syntax(
            "<|tool_call:begin|>$id<|tool_call:name|>$name<|tool_call:args|>$args<|tool_call:end|>",
            _JSON,
            begin="<|tool_calls|>",
            between="",
            end="<|calls|>",
        ),
        ("<|content|>", "<|end|>"),
    ),
    Family(
        "hunyuan",
        ("opensource", "tool_sep"),
        Syntax(
            "<tool_call:opensource>$name<tool_sep:opensource>\n$args</tool_call:opensource>",
            TaggedArguments(
                "<arg_key:opensource>$key</arg_key:opensource>\n<arg_value:opensource>",
                "</arg_value:opensource>\n",
            ),
            begin="<tool_calls:opensource>\n",
            end="\n</tool_calls:opensource>",
        ),
    ),
    Family(
        "glm",
        ("<tool_call>", "<arg_key>"),
        Syntax(
            "<tool_call>$name\n$args</tool_call>",
            TaggedArguments("<arg_key>$key</arg_key>\n<arg_value>", "</arg_value>\n"),
        ),
    ),
    Family(
        "glm-4.7",
        ("<tool_call>", "<arg_key>"),
        Syntax(
            "<tool_call>$name$args</tool_call>",
            TaggedArguments("<arg_key>$key</arg_key><arg_value>", "</arg_value>"),
            between="",
        ),
    ),
    Family(
        "ling",
        ("<tool_call>", "<arg_key>"),
        Syntax(
            "<tool_call>$name\n$args\n</tool_call>",
            TaggedArguments("<arg_key>$key</arg_key>\n<arg_value>", "</arg_value>"),
        ),
    ),
    Family(
        "seed",
        ("<seed:tool_call>", "<function="),
        Syntax(
            "<seed:tool_call>\n<function=$name>\n$args</function>\n</seed:tool_call>",
            TaggedArguments("<parameter=$key>", "</parameter>\n"),
        ),
    ),
    Family(
        "qwen3-coder",
        ("<tool_call>", "<function=", "<parameter="),
        Syntax(
            "<tool_call>\n<function=$name>\n$args</function>\n</tool_call>",
            TaggedArguments("<parameter=$key>\n", "\n</parameter>\n"),
        ),
    ),
    Family(
        "minicpm5",
        ('<function name="', '<param name="'),
        Syntax(
            '<function name="$name">$args</function>',
            TaggedArguments('<param name="$key">', "</param>"),
        ),
    ),
    Family(
        "functionary-v3.2",
        (">>>all", ">>>${recipient}"),
        Syntax(">>>$name\n$args", _JSON),
        (">>>all\n", ""),
    ),
    Family(
        "functionary-v3.1",
        ("<function=", "</function>", "tool_calls"),
        Syntax("<function=$name>$args</function>", _JSON, between=""),
    ),
    Family(
        "gemma-4",
        ("<|tool_call>", "<tool_call|>"),
        Syntax(
            "<|tool_call>call:$name{$args}<tool_call|>",
            KeywordArguments(":", ",", "}", quote='<|"|>'),
            between="",
        ),
    ),
    Family(
        "function-gemma",
        ("<start_function_call>", "<end_function_call>"),
        Syntax(
            "<start_function_call>call:$name{$args}<end_function_call>",
            KeywordArguments(":", ",", "}", quote="<escape>"),
            between="",
        ),
    ),
    Family(
        "lfm2",
        ("<|tool_call_start|>",),
        Syntax(
            "$name($args)",
            KeywordArguments("=", ", ", ")"),
            begin="<|tool_call_start|>[",
            between=", ",
            end="]<|tool_call_end|>",
        ),
    ),
    Family(
        "lfm2",
        ("List of tools: ",),
        Syntax(
            "$name($args)",
            KeywordArguments("=", ", ", ")"),
            begin="<|tool_call_start|>[",
            between=", ",
            end="]<|tool_call_end|>",
        ),
    ),
    Family(
        "cohere",
        ("<|START_ACTION|>", "<|START_TEXT|>"),
        Syntax(
            '{"tool_call_id": "$id", "tool_name": "$name", "parameters": $args}',
            _JSON,
            begin="<|START_ACTION|>[\n    ",
            between=",\n    ",
            end="\n]<|END_ACTION|>",
        ),
        ("<|START_TEXT|>", "<|END_TEXT|>"),
    ),
    Family(
        "cohere",
        ("<|START_ACTION|>",),
        Syntax(
            '{"tool_call_id": "$id", "tool_name": "$name", "parameters": $args}',
            _JSON,
            begin="<|START_ACTION|>[\n    ",
            between=",\n    ",
            end="\n]<|END_ACTION|>",
        ),
        ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ),
    Family(
        "command-r",
        ("Action:\\n```json", "tool_name"),
        Syntax(
            '{"tool_name": "$name", "parameters": $args}',
            _JSON,
            begin="Action:\n```json\n[\n    ",
            between=",\n    ",
            end="\n]```",
        ),
    ),
    Family(
        "mistral-v11",
        ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
        Syntax("[TOOL_CALLS]$name[CALL_ID]$id[ARGS]$args", _JSON, between=""),
    ),
    Family(
        "mistral-v13",
        ("[TOOL_CALLS]", "[ARGS]"),
        Syntax("[TOOL_CALLS]$name[ARGS]$args", _JSON, between=""),
    ),
    Family(
        "mistral",
        ("[TOOL_CALLS]",),
        Syntax(
            '{"name": "$name", "arguments": $args$(, "id": "$id"$)}',
            _JSON,
            begin="[TOOL_CALLS][",
            between=", ",
            end="]",
        ),
    ),
    Family(
        "apertus",
        ("<|tools_prefix|>",),
        Syntax(
            '{"$name": $args}',
            _JSON,
            begin="<|tools_prefix|>[",
            between=", ",
            end="]<|tools_suffix|>",
        ),
    ),
    Family(
        "apriel",
        ("<tool_calls>[",),
        Syntax(
            '{"name": "$name", "arguments": $args$(, "id": "$id"$)}',
            _JSON,
            begin="<tool_calls>[",
            between=", ",
            end="]</tool_calls>",
        ),
    ),
    Family(
        "minimax-m1",
        ("<tool_calls>",),
        Syntax(
            '{"name": "$name", "arguments": $args}',
            _JSON,
            begin="<tool_calls>\n",
            end="\n</tool_calls>",
        ),
    ),
    Family(
        "nemotron",
        ("<TOOLCALL>",),
        Syntax(
            '{"name": "$name", "arguments": $args}',
            _JSON,
            begin="<TOOLCALL>[",
            between=", ",
            end="]</TOOLCALL>",
        ),
    ),
    Family(
        "gigachat",
        ("<|function_call|>",),
        Syntax(
            '<|function_call|>{"name": "$name", "arguments": $args}',
            _JSON,
            parallel=False,
        ),
    ),
    Family(
        "gigachat-3",
        ("<|message_sep|>", "<|role_sep|>"),
        Syntax(
            '{"name": "$name", "arguments": $args}',
            _JSON,
            begin="<|message_sep|>\n\nfunction call<|role_sep|>\n",
            parallel=False,
        ),
    ),
    Family(
        "phi-4",
        ("<|tool_call|>", "<|/tool_call|>"),
        Syntax(
            '{"name": "$name", "arguments": $args}',
            _JSON,
            begin="<|tool_call|>[",
            between=", ",
            end="]<|/tool_call|>",
        ),
    ),
    Family(
        "granite",
        ("<|tool_call|>",),
        Syntax(
            '{"name": "$name", "arguments": $args}',
            _JSON,
            begin="<|tool_call|>[",
            between=", ",
            end="]",
        ),
        ("<response>", "</response>"),
    ),
    Family(
        "firefunction",
        ("functools[",),
        Syntax(
            '{"name": "$name", "arguments": $args}',
            _JSON,
            begin="functools[",
            between=", ",
            end="]",
        ),
    ),
    Family("hermes", ("<tool_call>",), HERMES),
    Family("llama-3", ("<|start_header_id|>", "parameters"), LLAMA),
)
