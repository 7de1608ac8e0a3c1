"""Text that is published: without what is nobody's business, and without markup where it came from data."""

import re
from typing import Any

ABSOLUTE_PATH = re.compile(r"(?<![\w/:.~])(?:~?/|[A-Za-z]:\\)(?:[^\s/\\,]+[/\\])*([^\s/\\,]+)")
WHOLE_PATH = re.compile(r"(?:~?/|[A-Za-z]:\\)[^,]*")
CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
# Of the Hub, GitHub, GitLab, OpenAI and others, Slack and AWS.
TOKEN = re.compile(r"\b(?:hf_|gh[opsu]_|github_pat_|glpat-|sk-|xox[abprs]-|AKIA)[\w-]{10,}")
LINE_BREAK = re.compile(r"\s*[\r\n\u2028\u2029]\s*")
SPECIAL = re.compile(r"[\\`*\[\]|#!~]|(?<!\w)_|_(?!\w)")


def without_private(value: Any) -> Any:
    """A JSON value in which absolute paths are their last part, without tokens and passwords in addresses."""
    if isinstance(value, dict):
        return {key: without_private(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_private(entry) for entry in value]
    if not isinstance(value, str):
        return value
    if WHOLE_PATH.fullmatch(value):
        value = re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return TOKEN.sub("(token)", CREDENTIALS.sub("", ABSOLUTE_PATH.sub(r"\1", value)))


def in_markdown(text: str) -> str:
    """Text from data as Markdown that shows it as it is, in one line."""
    text = LINE_BREAK.sub(" ", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return SPECIAL.sub(r"\\\g<0>", text).replace("://", ":&#47;/")  # An address is shown, and not a link.


def shown(value: Any) -> Any:
    """What a template puts into a card: text from data `in_markdown`, and what is `Markup` or no text as it is."""
    return in_markdown(value) if type(value) is str else value
