"""Python functions as tools: the JSON schema comes from their annotations."""

from __future__ import annotations

import enum
import inspect
import json
import typing
from typing import Any, Callable, Dict, Optional

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object", list: "array"}


def schema_of_type(kind: Any) -> Dict[str, Any]:
    """The JSON schema of str, int, float, bool, list[...], dict, Literal, Enum, Optional and Annotated."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        schema = schema_of_type(arguments[0])
        texts = [text for text in arguments[1:] if isinstance(text, str)]
        return {**schema, "description": texts[0]} if texts else schema
    if origin is typing.Literal:
        return {"type": _PLAIN[type(arguments[0])], "enum": list(arguments)}
    if inspect.isclass(kind) and issubclass(kind, enum.Enum):
        values = [member.value for member in kind]
        return {"type": _PLAIN[type(values[0])], "enum": values}
    rest = [argument for argument in arguments if argument is not type(None)]
    if len(rest) < len(arguments) and len(rest) == 1:  # Optional
        return schema_of_type(rest[0])
    base = origin or kind
    if base in _PLAIN:
        schema = {"type": _PLAIN[base]}
        if base is list and arguments:
            schema["items"] = schema_of_type(arguments[0])
        return schema
    raise TypeError(
        f"no JSON schema for {kind!r}: annotate with str, int, float, bool, list, dict or Literal, or give schema="
    )


def schema_of(function: Callable[..., Any]) -> Dict[str, Any]:
    """The JSON schema of a function's parameters. All need an annotation; those with a default are optional."""
    hints = typing.get_type_hints(function, include_extras=True)
    properties, required = {}, []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(
                f"parameter {name} of {function.__name__} cannot be given by name: a model can only do that"
            )
        if name not in hints:
            raise TypeError(f"parameter {name} of {function.__name__} has no annotation: add one, or give schema=")
        properties[name] = schema_of_type(hints[name])
        if parameter.default is parameter.empty:
            required.append(name)
    return {"type": "object", "properties": properties, "required": required}


class Tool:
    """A function that the model may call. What it returns goes back as text, or as JSON if it is not a str."""

    def __init__(
        self,
        function: Callable[..., Any],
        name: Optional[str] = None,
        description: Optional[str] = None,
        schema: Optional[Dict[str, Any]] = None,
    ) -> None:
        self.function = function
        self.name = name or function.__name__
        self.description = description or (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")
        self.schema = schema_of(function) if schema is None else schema
        self._signature = inspect.signature(function)

    def declaration(self) -> Dict[str, Any]:
        function = {"name": self.name, "description": self.description, "parameters": self.schema}
        return {"type": "function", "function": function}

    def call(self, arguments_json: str) -> str:
        """Arguments that do not fit are the model's mistake: it is told. What the function raises goes through."""
        arguments = json.loads(arguments_json)
        try:
            bound = self._signature.bind(**arguments)
        except TypeError as error:
            return f"error: {error}"
        result = self.function(*bound.args, **bound.kwargs)
        return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
