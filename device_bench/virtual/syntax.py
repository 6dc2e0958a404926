"""The part of the shell language the device understands, parsed into plain data.

Commands, quotes, ``$NAME`` and ``$?``, pipes, ``;``, ``&&``, ``||``, ``!``, redirections and
comments. Everything else (loops, functions, subshells, substitutions, background jobs) is refused
before anything has run, never taken for something it is not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REDIRECT = re.compile(r"([0-9]*)(>>|>&|<<|<&|<>|>\||>|<)")
_LOOPS = ("for", "while", "until", "do", "done", "select")
_CHOICES = ("if", "then", "elif", "else", "fi", "case", "esac", "[[")
_RESERVED = frozenset((*_LOOPS, *_CHOICES, "function", "{", "}", "time"))
_WORD_END = frozenset(" \t\n;&|<>()")
MAX_LENGTH = 1 << 17
MAX_PIPE = 32


class ShellSyntaxError(Exception):
    """The line cannot be run; the message says which part of it."""


@dataclass(frozen=True)
class Part:
    """A piece of a word: text, or the name of a variable to put in its place."""

    text: str
    quoted: bool
    variable: bool = False


@dataclass(frozen=True)
class Word:
    """What becomes one argument, or several after expansion."""

    parts: tuple[Part, ...]

    @property
    def literal(self) -> str | None:
        """The text of a word that is plain and unquoted, None for any other."""
        if any(part.quoted or part.variable for part in self.parts):
            return None
        return "".join(part.text for part in self.parts)


@dataclass(frozen=True)
class Redirect:
    """``descriptor`` goes to a file (``operator`` is ``<``, ``>`` or ``>>``) or joins another.

    With ``operator`` ``>&`` the target is the number of the descriptor joined.
    """

    descriptor: int
    operator: str
    target: Word


@dataclass
class Command:
    """A simple command: assignments, arguments and redirections, in order."""

    assignments: list[tuple[str, Word]] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    redirects: list[Redirect] = field(default_factory=list)


@dataclass
class Pipeline:
    """Commands joined by ``|``; ``negated`` by a leading ``!``.

    ``joint`` says when it runs, given the status before: ``;`` always, ``&&`` after success,
    ``||`` after failure.
    """

    joint: str
    negated: bool = False
    commands: list[Command] = field(default_factory=list)


def parse(text: str) -> list[Pipeline]:
    """Parse a script.

    Raises:
        ShellSyntaxError: it is malformed or uses what the device does not support.
    """
    if len(text) > MAX_LENGTH:
        raise ShellSyntaxError(f"a command of more than {MAX_LENGTH} characters is not supported")
    return _Parser(text).script()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def script(self) -> list[Pipeline]:
        """The whole text: pipelines and what joins them."""
        pipelines: list[Pipeline] = []
        joint = ";"
        while True:
            self._skip_blank(newlines=True)
            if self._at == len(self._text) and joint == ";":
                return pipelines
            pipelines.append(self._pipeline(joint))
            joint = self._joint()

    def _joint(self) -> str:
        for token in ("&&", "||", ";", "\n"):
            if self._take(token):
                return ";" if token == "\n" else token
        if self._at == len(self._text):
            return ";"
        # Only what ends a word and is none of the above is left: & ( )
        raise ShellSyntaxError(f"'{self._text[self._at]}' is not supported")

    def _pipeline(self, joint: str) -> Pipeline:
        pipeline = Pipeline(joint)
        while True:
            command = self._command()
            first = command.words[0].literal if command.words else None
            if first == "!" and not pipeline.commands and not command.assignments:
                pipeline.negated = True
                del command.words[0]
                first = command.words[0].literal if command.words else None
            if first in _RESERVED:
                raise ShellSyntaxError(f"'{first}' is not supported")
            if not (command.words or command.assignments or command.redirects):
                raise ShellSyntaxError(f"syntax error near '{self._text[self._at :][:20]}'")
            pipeline.commands.append(command)
            if self._text.startswith("||", self._at) or not self._take("|"):
                return pipeline
            if self._take("&"):
                raise ShellSyntaxError("'|&' is not supported")
            if len(pipeline.commands) == MAX_PIPE:
                raise ShellSyntaxError(f"a pipe of more than {MAX_PIPE} commands is not supported")
            self._skip_blank(newlines=True)

    def _command(self) -> Command:
        command = Command()
        while True:
            self._skip_blank(newlines=False)
            match = _REDIRECT.match(self._text, self._at)
            if match:
                self._at = match.end()
                command.redirects.append(self._redirect(match[1], match[2]))
                continue
            if self._at == len(self._text) or self._text[self._at] in _WORD_END:
                return command
            word = self._word()
            assignment = None if command.words else _assignment(word)
            if assignment:
                command.assignments.append(assignment)
            else:
                command.words.append(word)

    def _redirect(self, number: str, operator: str) -> Redirect:
        if operator in ("<<", "<&", "<>", ">|"):
            raise ShellSyntaxError(f"'{operator}' is not supported")
        descriptor = int(number) if number else int(operator != "<")
        allowed = (0,) if operator == "<" else (1, 2)
        if descriptor not in allowed:
            raise ShellSyntaxError(f"redirection '{number}{operator}' is not supported")
        self._skip_blank(newlines=False)
        if self._at == len(self._text) or self._text[self._at] in _WORD_END:
            raise ShellSyntaxError(f"nothing after '{number}{operator}'")
        target = self._word()
        if operator == ">&" and target.literal not in ("1", "2"):
            raise ShellSyntaxError("'>&' is only supported with 1 or 2 after it")
        return Redirect(descriptor, operator, target)

    def _word(self) -> Word:
        parts: list[Part] = []
        while self._at < len(self._text) and self._text[self._at] not in _WORD_END:
            letter = self._text[self._at]
            if letter == "'":
                parts.append(Part(self._until("'"), quoted=True))
            elif letter == '"':
                parts.extend(self._double_quoted())
            elif letter == "\\":
                escaped = self._text[self._at + 1 : self._at + 2]
                self._at += 1 + len(escaped)
                if escaped != "\n":
                    parts.append(Part(escaped or "\\", quoted=True))
            elif letter in "$`":
                parts.append(self._variable(quoted=False))
            else:
                parts.append(Part(letter, quoted=False))
                self._at += 1
        plain = "".join(" " if part.quoted or part.variable else part.text for part in parts)
        start = plain.find("{")
        braced = plain[start : plain.rfind("}") + 1] if start >= 0 else ""
        if plain.startswith("~") or "," in braced or ".." in braced:
            raise ShellSyntaxError(f"expansion of '{plain}' is not supported")
        return Word(tuple(parts))

    def _until(self, quote: str) -> str:
        end = self._text.find(quote, self._at + 1)
        if end < 0:
            raise ShellSyntaxError(f"no closing {quote}")
        text = self._text[self._at + 1 : end]
        self._at = end + 1
        return text

    def _double_quoted(self) -> list[Part]:
        parts = [Part("", quoted=True)]
        self._at += 1
        while self._at < len(self._text):
            letter = self._text[self._at]
            if letter == '"':
                self._at += 1
                return parts
            if letter in "$`":
                parts.append(self._variable(quoted=True))
                continue
            if letter == "\\" and self._text[self._at + 1 : self._at + 2] in ("\\", '"', "$", "`"):
                self._at += 1
                letter = self._text[self._at]
            parts.append(Part(letter, quoted=True))
            self._at += 1
        raise ShellSyntaxError('no closing "')

    def _variable(self, *, quoted: bool) -> Part:
        """At ``$`` or a backquote: a variable, or a lone ``$`` that stands for itself."""
        rest = self._text[self._at : self._at + 2]
        if rest[0] == "`" or rest == "$(":
            raise ShellSyntaxError("command substitution is not supported")
        if rest == "$?":
            self._at += 2
            return Part("?", quoted, variable=True)
        braced = rest == "${"
        match = _NAME.match(self._text, self._at + 1 + braced)
        if braced and (not match or not self._text.startswith("}", match.end())):
            raise ShellSyntaxError("of '${...}' only a plain name is supported")
        if match:
            self._at = match.end() + braced
            return Part(match[0], quoted, variable=True)
        if rest[1:] and rest[1] in ("0123456789@*#$!-" if quoted else "0123456789@*#$!-'\""):
            raise ShellSyntaxError(f"'{rest}' is not supported")
        self._at += 1
        return Part("$", quoted)

    def _skip_blank(self, *, newlines: bool) -> None:
        """Skip blanks, comments and line continuations, and line ends where they mean nothing."""
        while self._at < len(self._text):
            letter = self._text[self._at]
            if letter in " \t" or (newlines and letter == "\n"):
                self._at += 1
            elif self._text.startswith("\\\n", self._at):
                self._at += 2
            elif letter == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            else:
                return

    def _take(self, token: str) -> bool:
        found = self._text.startswith(token, self._at)
        if found:
            self._at += len(token)
        return found


def _assignment(word: Word) -> tuple[str, Word] | None:
    """``NAME=value`` as name and value, None for any other word."""
    name = ""
    for index, part in enumerate(word.parts):
        if part.quoted or part.variable:
            return None
        if part.text == "=":
            return (name, Word(word.parts[index + 1 :])) if _NAME.fullmatch(name) else None
        name += part.text
    return None
