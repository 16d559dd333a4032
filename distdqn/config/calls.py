"""Calls written down: a name, and arguments that are plain values.

    TimeAwareObservation
    ClipReward(min_reward=-1, max_reward=1)
    my_wrappers:shaped(scale=0.5)

One text for each call, whatever it was written as, so that it is the same in YAML, as a
flag and in a checkpoint. Nothing is evaluated: an argument is a literal of Python.
"""

import ast
import re
from collections.abc import Mapping
from typing import Any, NewType

Call = NewType("Call", str)
"""A call's text in the form that `call_text` gives."""

FORM = "NAME or NAME(ARGUMENT=VALUE, ...)"

_NAME = re.compile(r"[A-Za-z_][\w.]*(:[A-Za-z_][\w.]*)?")
_WORDS = {"true": True, "false": False, "none": None, "null": None}  # of YAML and flags


def call_text(value: Any) -> str:
    """The one text of a call, from such a text, a name, or `{name: {argument: value}}`.
    Raises ValueError: what is wrong with it."""
    name, arguments = parse_call(value) if isinstance(value, str) else _from_mapping(value)
    written = ", ".join(f"{key}={argument!r}" for key, argument in arguments.items())
    text = f"{name}({written})" if written else name
    parse_call(text)  # refuses what has no text, as dates and infinities
    return text


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a call.  Raises ValueError: what is wrong with it."""
    name, parenthesis, rest = text.strip().partition("(")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name")
    if not parenthesis:
        return name, {}
    try:
        call = ast.parse(f"call({rest}", mode="eval").body
    except SyntaxError as error:
        raise ValueError(error.msg) from None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ValueError("there is more than a call")
    names = [keyword.arg for keyword in call.keywords]
    if call.args or None in names:
        raise ValueError("arguments are given by their names")
    if len(set(names)) < len(names):
        raise ValueError(f"keyword argument repeated: {max(names, key=names.count)}")
    return name, {str(keyword.arg): _value(keyword) for keyword in call.keywords}


def _from_mapping(value: Any) -> tuple[str, Mapping[str, Any]]:
    if not isinstance(value, Mapping) or len(value) != 1:
        raise ValueError("a mapping has the name as its only key")
    ((name, arguments),) = value.items()
    arguments = {} if arguments is None else arguments
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name")
    if not isinstance(arguments, Mapping) or not all(str(key).isidentifier() for key in arguments):
        raise ValueError("arguments are a mapping from their names to values")
    return name, arguments


def _value(keyword: ast.keyword) -> Any:
    node = keyword.value
    if isinstance(node, ast.Name) and node.id in _WORDS:
        return _WORDS[node.id]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        raise ValueError(
            f"{keyword.arg} is {ast.unparse(node)}, no number, quoted text, bool, None, or "
            "list, tuple or dict of these"
        ) from None
