"""Groups of settings: each field has its type, range and meaning, and pydantic checks them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, NoReturn, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from dppm_model import bounds
from dppm_model.errors import ConfigError, DppmError

Positive = Annotated[float, Field(gt=0)]
Whole = Annotated[int, Field(ge=1, lt=1 << 63)]
Natural = Annotated[int, Field(ge=0, lt=1 << 63)]
Fraction = Annotated[float, Field(gt=0, le=1)]
AsTuple = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)

_WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "tuple_type": "a list",
    "list_type": "a list",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
}


class Settings(BaseModel):
    """A frozen group of settings.

    It is closed and strict: unknown keys are refused, 3.0 and true are no whole numbers, numbers
    are finite. But 1 may stand for 1.0. The text below a field is its meaning, which
    `dppm config` prints.

    Raises
    ------
    pydantic.ValidationError
        `of` and `replace` raise a `ConfigError` in its place.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @classmethod
    def of(cls, values: Any, where: str = "") -> Self:
        """Build the group from a plain dictionary.

        ``where`` is the group's own key, for the refusal. Raises ConfigError naming the first key
        that is unknown, missing, of the wrong type or out of its range.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            refuse(error, values, where, known=names(cls, f"{where}." if where else ""))

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other values, checked as a whole; raises as `of` does."""
        own = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self).of(own | (self.model_extra or {}) | changes)

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary, ready for JSON and YAML, that `of` reads back."""
        return self.model_dump(mode="json")


def names(schema: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Return the dotted names of all fields, including those of nested groups."""
    found: dict[str, Any] = {}
    for name, field in schema.model_fields.items():
        found[prefix + name] = field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= names(field.annotation, f"{prefix}{name}.")
    return found


def refuse(
    error: ValidationError,
    values: Any,
    where: str = "",
    kind: type[DppmError] = ConfigError,
    known: Mapping[str, Any] | None = None,
) -> NoReturn:
    """Raise a refusal of one line for the first thing that pydantic found in ``values``.

    Raises
    ------
    DppmError
        Of ``kind``.
    """
    found = error.errors(include_url=False)[0]
    names = [where] if where else []
    for part in found["loc"]:  # among them are names of types, where one of several would do
        if found["type"] == "missing" or _holds(values, part):
            names.append(str(part))
            values = values[part] if _holds(values, part) else None
    name = ".".join(names)
    if found["type"] in ("extra_forbidden", "missing"):
        said = "is missing" if found["type"] == "missing" else "is not a setting"
        raise kind(f"{name} {said}.", near(name, known or {}))
    wanted = _WANTED.get(found["type"], found["msg"]).format(**found.get("ctx", {}))
    wanted = wanted.removeprefix("Input should be ").removeprefix("Value error, ")
    bounds.refuse(kind, name, found["input"], f"Give {wanted}.")


def _holds(values: Any, part: str | int) -> bool:
    if isinstance(values, Mapping):
        return part in values
    return isinstance(values, list | tuple) and isinstance(part, int) and part < len(values)


def near(name: str, known: Mapping[str, Any]) -> str:
    """Suggest known keys for an unknown one."""
    found = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(found)}?" if found else "`dppm config` lists all keys."
