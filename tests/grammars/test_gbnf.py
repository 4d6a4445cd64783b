"""GBNF as people write it, and what is refused of it."""

from __future__ import annotations

import random
import time

import pytest

from server.core.errors import InvalidRequest
from server.services.grammars import gbnf_body

from .acceptance import accepts, matcher

JSON = r"""
# as llama.cpp writes it
root   ::= value
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::=
  "{" ws (
            string ":" ws value   # a member
    ("," ws string ":" ws value)*
  )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9]+)? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""
KEYWORDS = r"""
root ::= statement+
statement ::= "if" ws "(" root ")" | "let " name " = " name ";" | name ";" | "{" root "}"
name ::= [a-z_] [a-z0-9_]*
ws ::= [ \t]*
"""


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        (JSON, ['{"a": [1, 2.5e-3, {"é": "x\\n\\u00e9"}],\n  "b":true}', "[]", '"" '], ['{"a"}', "[1,]", '"\n"', "  1"]),  # noqa: E501
        (KEYWORDS, ["if(x;)", "if  (let y = if;)", "ifx;", "let x = lett;", "{let;}", "iff;if;"], ["if", "let x=y;", "x", "{}"]),  # noqa: E501
        ('root ::= "a" | "ab" | "abc" root', ["a", "ab", "abca", "abcab"], ["abc", "b"]),
        ('root ::= [a-z]+ root2\nroot2 ::= "s" | "(" root ")"', ["as", "a(bs)"], ["s", "a()"]),
        ('root ::= item root | "."\nitem ::= [0-9] ","', [".", "1,2,."], ["1,", "1."]),
        ('root ::= "x" root "y" | ', ["", "xy", "xxyy"], ["x", "xyy"]),
        ('root ::= .', ["a", "\n", "é", "😀"], ["", "ab"]),
        ('root ::= [^a\\n]', ["b", "é"], ["a", "\n"]),
        (r'root ::= "\x41\u00e9\U0001F600\t\r\n\\\"\[\]\-"', ["Aé😀\t\r\n\\\"[]-"], ["A"]),
        (r'root ::= [\]\-\x30-9a-]', ["]", "-", "5", "a"], ["b", "\\"]),
        ('root ::= "ab"{2} "c"{0,3}', ["abab", "ababccc"], ["ab", "ababcccc"]),
        ('root ::= ("a" | "b"){2,}', ["ab", "bbb"], ["a"]),
        ('root ::= "a"?+', ["", "aa"], ["b"]),
        ('root ::= ((("a")))\n\n\n# the end', ["a"], [""]),
        ('a ::= "a" |\n  "b"\nroot ::= a a', ["ab"], ["a"]),
        ('root ::= a-1 "/"\na-1 ::= "a/b"', ["a/b/"], ["a/b"]),
        ('root ::= ""', [""], ["a"]),
        ('root ::= "a"{0} "b"', ["b"], ["ab"]),
        ("root ::= \"'\" [']\r\n", ["''"], ["'"]),
    ],
)  # fmt: skip
def test_language(grammar: str, good: list[str], bad: list[str]) -> None:
    body = gbnf_body(grammar, param="grammar")
    assert [text for text in good if not accepts(body, text)] == []
    assert [text for text in bad if accepts(body, text)] == []


def test_tokens_by_number_and_by_name() -> None:
    body = gbnf_body('root ::= <[65]> x !<[66]> <|end|>\nx ::= "b" | "(" root ")"', param="grammar")
    assert "<[65]>" in body and "<[^66]>" in body and "<|end|>" in body
    made = matcher(gbnf_body('root ::= <[65]> "b" <[67]>', param="grammar"))
    assert made.try_consume_tokens([65, 98, 67]) == 3
    assert made.is_accepting()
    refused = matcher(gbnf_body('root ::= <[65]> "b" !<[67]>', param="grammar"))
    assert refused.try_consume_tokens([65, 98, 67]) == 2


@pytest.mark.parametrize(
    ("grammar", "words"),
    [
        ("", "root is missing"),
        ("# nothing", "root is missing"),
        ('a ::= "x"', "root is missing"),
        ('root ::= "a"\n\nroot2 ::= gone', "Line 3 of the grammar: the rule gone is not defined"),
        ('root = "a"', "Line 1 of the grammar: expected ::="),
        ('root ::= ("a"', "expected )"),
        ('root ::= "a")', "unexpected ')'"),
        ('root ::= "a', "does not end in its line"),
        ('root ::= "a\n"', "Line 1 of the grammar: a literal"),
        ("root ::= [a", "does not end"),
        ("root ::= []", "no character fits"),
        ("root ::= [z-a]", "lower"),
        (r'root ::= "\q"', "unknown escape"),
        (r'root ::= "\xZ1"', "unknown escape"),
        (r'root ::= "\uD800"', "is no character"),
        (r'root ::= "\UFFFFFFFF"', "is no character"),
        ("root ::= * ", "nothing to repeat"),
        ('root ::= "a"{3,2}', "3 to 2"),
        ('root ::= "a"{x}', "a count like"),
        ('root ::= "a"{99999}', "more than 10000"),
        ("root ::= <a b>", "a token like"),
        ("root ::= !<name>", "needs its number"),
        ('root ::= root "a" | "b"', "root begins with itself"),
        ('root ::= a? b\na ::= "a"\nb ::= "c"* root', "left recursion"),
        ('root ::= "(" root ")"', "root never ends"),
        ('root ::= "a"\nx ::= "b" x', "x never ends"),
        ("root ::= @", "expected a rule"),
        ("\ud800", "expected the name"),
        ('root ::= "\ud800"', "is no character"),
        ("root ::= " + "(" * 60_000 + ")" * 39_000, "deeper than 50"),
        ('root ::= "' + "a" * 1_000_000 + '"', "longer than"),
        ("".join(f'r{i} ::= r{i + 1}\n' for i in range(5000)), "more than 1000 rules"),
    ],
)  # fmt: skip
def test_refused_with_its_line(grammar: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        gbnf_body(grammar, param="grammar")
    assert words in caught.value.message
    assert (caught.value.error_code, caught.value.param) == ("invalid_grammar", "grammar")


def doubling(rules: int) -> str:
    links = "".join(f"r{i} ::= r{i + 1} | r{i + 1} root?\n" for i in range(rules))
    return f'root ::= "(" r0\n{links}r{rules} ::= "a"\n'


def tangled(seed: int, rules: int = 50) -> str:
    rng = random.Random(seed)

    def item() -> str:
        return rng.choice(
            [
                lambda: f"r{rng.randrange(rules)}" + rng.choice(["", "*", "?", "+"]),
                lambda: rng.choice(["[a-z]", "[b-y]", '"ab"']) + rng.choice(["*", "+", "{0,20}"]),
                lambda: rng.choice(['"a"', '"bc"', "[^a]", "."]),
                lambda: f"({item()} | {item()})*",
            ]
        )()

    def options() -> str:
        return " | ".join(f"{item()} {item()} {item()}" for _ in range(4))

    return "root ::= r0\n" + "".join(f'r{i} ::= "a" ({options()})\n' for i in range(rules))


@pytest.mark.parametrize(
    "grammar",
    [
        doubling(40),
        tangled(6),
        'root ::= "x" ' + "(" * 25 + '"a" root "b"' + ")*" * 25,
        "".join(f"r{i} ::= r{i + 1}\n" for i in range(900)) + 'root ::= r0\nr900 ::= "a"',
        'root ::= "(' + "a" * 90_000 + '" root? ")"',
        "root ::= " + " | ".join(f'"k{i}" root?' for i in range(700)),
        "root ::= x x x x\nx ::= ([a-z]* [a-y]+ [b-z]*)+ (\"(\" root \")\")?",
        "root ::= " + " ".join("[a-z]?" for _ in range(2_000)) + ' ("(" root ")")?',
    ],
)  # fmt: skip
def test_what_is_hard_to_read_is_read_in_time(grammar: str) -> None:
    start = time.perf_counter()
    body = gbnf_body(grammar, param="grammar")
    assert time.perf_counter() - start < 10
    matcher(body)
