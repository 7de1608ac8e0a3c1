"""Cleaning of text before it is published: private parts are removed, and Markdown in text from data is escaped."""

import re
from typing import Any

ABSOLUTE_PATH = re.compile(r"(?<![\w/:.~])(?:~?/|[A-Za-z]:\\)(?:[^\s/\\,]+[/\\])*([^\s/\\,]+)")
WHOLE_PATH = re.compile(r"(?:~?/|[A-Za-z]:\\)[^,]*")
CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
# Tokens of the Hub, GitHub, GitLab, OpenAI and others, Slack and AWS.
TOKEN = re.compile(r"\b(?:hf_|gh[opsu]_|github_pat_|glpat-|sk-|xox[abprs]-|AKIA)[\w-]{10,}")
LINE_BREAK = re.compile(r"\s*[\r\n\u2028\u2029]\s*")
SPECIAL = re.compile(r"[\\`*\[\]|#!~]|(?<!\w)_|_(?!\w)")


def remove_private(value: Any) -> Any:
    """Shorten absolute paths in a JSON value to their last part, and remove tokens and passwords in URLs."""
    if isinstance(value, dict):
        return {key: remove_private(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [remove_private(entry) for entry in value]
    if not isinstance(value, str):
        return value
    if WHOLE_PATH.fullmatch(value):
        value = re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return TOKEN.sub("(token)", CREDENTIALS.sub("", ABSOLUTE_PATH.sub(r"\1", value)))


def escape_markdown(text: str) -> str:
    """Escape text so that Markdown shows it unchanged, in one line."""
    text = LINE_BREAK.sub(" ", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return SPECIAL.sub(r"\\\g<0>", text).replace("://", ":&#47;/")  # Keeps URLs from becoming links.


def escape_untrusted(value: Any) -> Any:
    """Escape the Markdown of a value that a template inserts, unless it is `Markup` or not a text."""
    return escape_markdown(value) if type(value) is str else value
