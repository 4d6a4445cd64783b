"""Pydantic models at random, by a seed."""

from __future__ import annotations

import enum
import random
from datetime import date, datetime, time, timedelta
from typing import Annotated, Any, Literal, Optional, Union
from uuid import UUID

import pydantic
from pydantic import Field

_NAMES = ["name", "size", "Größe", "is ok", "tags", "kind", "a/b", "x~y", 'quote"d', "id"]
_PATTERNS = [
    r"^[A-Z]{2}-\d{3,4}$",
    r"^\w+@\w+\.(com|org)$",
    r"\d",
    r"^(a|bc)*$",
    r"x$",
    r"^#?[^\s]",
]


def model(seed: int) -> type[pydantic.BaseModel]:
    return _Maker(random.Random(seed)).model(depth=3)


class _Maker:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._count = 0

    def model(self, depth: int) -> type[pydantic.BaseModel]:
        self._count += 1
        name = f"Model{self._count}"
        names = self._rng.sample(_NAMES, self._rng.randint(1, 5))
        fields: dict[str, Any] = {
            f"field_{i}": self._field(alias, depth) for i, alias in enumerate(names)
        }
        if self._rng.random() < 0.3:
            fields["parent"] = (Optional[name], None)  # noqa: UP045
        if self._rng.random() < 0.2:
            fields["children"] = (list[name], ...)  # type: ignore[valid-type]
        made = pydantic.create_model(name, __config__=self._config(), **fields)
        made.model_rebuild(_types_namespace={name: made})
        return made

    def _config(self) -> pydantic.ConfigDict:
        extra = self._rng.choice(["ignore", "ignore", "forbid", "allow"])
        return pydantic.ConfigDict(extra=extra)

    def _field(self, alias: str, depth: int) -> tuple[Any, Any]:
        type_ = self._type(depth)
        if self._rng.random() < 0.3:
            described = Field(default=None, alias=alias, description="about it")
            return (Optional[type_], described)  # noqa: UP045
        return (type_, Field(alias=alias, title="Title"))

    def _type(self, depth: int) -> Any:
        simple = [
            self._integer,
            self._number,
            self._string,
            self._literal,
            self._enum,
            self._moment,
            lambda: bool,
            lambda: UUID,
            lambda: Any,
        ]
        nested = [
            lambda: self.model(depth - 1),
            lambda: self._list(depth),
            lambda: dict[str, self._type(depth - 1)],  # type: ignore[misc]
            lambda: dict[self._literal_of_names(), self._type(depth - 1)],  # type: ignore[misc]
            lambda: tuple[self._type(depth - 1), self._type(depth - 1)],
            lambda: Union[self._type(depth - 1), self._type(depth - 1), None],  # noqa: UP007
            lambda: self._tagged(depth),
        ]
        return self._rng.choice(simple if depth == 0 or self._rng.random() < 0.5 else nested)()

    def _integer(self) -> Any:
        low = self._rng.randint(-1000, 1000)
        return self._rng.choice(
            [
                int,
                Annotated[int, Field(ge=low, le=low + self._rng.randint(0, 10**6))],
                Annotated[int, Field(gt=low)],
                Annotated[int, Field(multiple_of=self._rng.randint(2, 12), ge=0)],
            ]
        )

    def _number(self) -> Any:
        low = round(self._rng.uniform(-100, 100), 3)
        return self._rng.choice(
            [
                float,
                Annotated[float, Field(gt=low, lt=low + self._rng.uniform(0.001, 1000))],
                Annotated[float, Field(ge=low)],
                Annotated[float, Field(multiple_of=0.25)],
            ]
        )

    def _string(self) -> Any:
        low = self._rng.randint(0, 5)
        return self._rng.choice(
            [
                str,
                Annotated[str, Field(min_length=low, max_length=low + self._rng.randint(0, 30))],
                Annotated[str, Field(pattern=self._rng.choice(_PATTERNS))],
            ]
        )

    def _literal(self) -> Any:
        values = self._rng.sample(["red", "grün", 'a"b', "two\nlines", 1, -7, True], 3)
        return Literal[tuple(values)]

    def _literal_of_names(self) -> Any:
        return Literal[tuple(self._rng.sample(_NAMES, 2))]

    def _enum(self) -> Any:
        self._count += 1
        values = self._rng.sample(["low", "middle", "high", "out\tlier"], 2)
        return enum.Enum(f"Enum{self._count}", {value.upper(): value for value in values})

    def _moment(self) -> Any:
        return self._rng.choice([date, time, datetime, timedelta])

    def _list(self, depth: int) -> Any:
        low = self._rng.randint(0, 2)
        item = self._type(depth - 1)
        return self._rng.choice(
            [
                list[item],
                Annotated[
                    list[item], Field(min_length=low, max_length=low + self._rng.randint(0, 4))
                ],
                tuple[item, ...],
            ]
        )

    def _tagged(self, depth: int) -> Any:
        options = []
        for tag in ("cat", "dog"):
            self._count += 1
            options.append(
                pydantic.create_model(
                    f"Tagged{self._count}",
                    kind=(Literal[tag], ...),
                    value=(self._type(depth - 1), ...),
                )
            )
        return Annotated[Union[tuple(options)], Field(discriminator="kind")]  # noqa: UP007
