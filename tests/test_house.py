"""The house rules, as tests: each row says what is forbidden, why, and what to do instead.

The rules read the syntax tree, never the running program, so they hold for code that no other test reaches. Every row
carries small programs that break it and small ones that keep it, and the last part of this file checks the checker with
them: a rule that cannot fail protects nothing.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ROOMS: Sequence[Sequence[str]] = (
    ("values",),
    ("errors", "ids"),
    ("canonical",),
    ("framing",),
    ("catalog",),
    ("dialects",),
    ("providers",),
    ("upstream",),
    ("store",),
    ("workers",),
    ("accounts",),
    ("reports",),
    ("gateway",),
    ("config",),
    ("storage",),
    ("runtime",),
    ("server",),
    ("cli",),
    ("__main__",),
)
"""The rooms from the innermost to the outermost; a room imports itself and those before it."""

FLOOR = {room: number for number, rooms in enumerate(ROOMS) for room in rooms}

LIBRARIES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "sqlite3": (("store",), "the store is the only room that knows SQL, so that another database can stand beside it"),
    "httptools": (("upstream", "server"), "HTTP is spoken in two rooms: towards providers and towards clients"),
    "aiohappyeyeballs": (("upstream",), "connections are made in the one room that leads to providers"),
    "httpx": (
        ("cli",),
        "httpx costs twenty times the upstream client's CPU: right for the command line, too dear elsewhere",
    ),
    "starlette": (("server",), "the web framework is the door's affair; the rooms behind it work without one"),
    "uvicorn": (("server", "cli"), "the web server is the door's affair; the rooms behind it work without one"),
    "typer": (("cli",), "commands belong to the terminal door"),
    "click": (("cli",), "commands belong to the terminal door"),
    "rich": (("cli",), "what people see on a terminal belongs to the terminal door"),
    "bcrypt": (("accounts",), "bcrypt is dear to import, so one module has it"),
    "jwt": (("accounts",), "jwt is dear to import, so one module has it"),
    "genai_prices": (("nowhere",), "the price package is dear to import, so the catalogue has a table made from it"),
    "prometheus_client": (("workers",), "metrics are added up over the workers in one place"),
}
"""Which rooms may import a library that the others must not know, and why."""

LAZY: Mapping[str, str] = {
    "inferxgate.cli": "a command loads only what it needs, so that --help and keys create start quickly",
    "inferxgate.accounts.tokens": "a gateway that only keys come to starts without the dear library of tokens",
}
"""Modules (or packages) whose functions may import, with the reason; everything else imports at the top."""

VENDORS = frozenset(
    {
        "openai",
        "anthropic",
        "claude",
        "gpt",
        "chatgpt",
        "gemini",
        "google",
        "vertex",
        "azure",
        "bedrock",
        "groq",
        "grok",
    }
    | {
        "mistral",
        "deepseek",
        "openrouter",
        "xai",
        "ollama",
        "cohere",
        "perplexity",
        "together",
        "fireworks",
        "replicate",
    }
)

FILE_LINES = 900
FUNCTION_LINES = 120
LINES_PER_BROAD_EXCEPT = 500


def room_of(name: str) -> str:
    """The room of a module, from its dotted name.

    A room of one file that outgrew it has more files beside it: ``config_sources`` is a part of ``config``.
    """
    parts = name.split(".")
    first = parts[1] if parts[0] == "inferxgate" and len(parts) > 1 else ""
    whole = first.partition("_")[0]
    return whole if first not in FLOOR and whole in FLOOR else first


@dataclass(frozen=True)
class Module:
    """One Python file: where it is, what it is called, and what it says."""

    path: str
    """Relative to the repository, with forward slashes."""
    source: str

    @cached_property
    def name(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @cached_property
    def room(self) -> str:
        """The room it stands in; empty for the package's own ``__init__`` and for files outside of the package."""
        return room_of(self.name)

    @cached_property
    def in_package(self) -> bool:
        return self.path.startswith("inferxgate/")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source, self.path)

    @cached_property
    def line_count(self) -> int:
        return self.source.count("\n")

    @cached_property
    def comments(self) -> dict[int, str]:
        """Line number to the comment on that line."""
        tokens = tokenize.generate_tokens(io.StringIO(self.source).readline)
        return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}

    @cached_property
    def imports(self) -> list[tuple[int, str]]:
        """(line, dotted name) of everything imported, the names after ``from`` included, wherever it stands."""
        found: list[tuple[int, str]] = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [(node.lineno, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
        return found


@dataclass(frozen=True)
class Finding:
    """One place that breaks a rule."""

    path: str
    line: int
    what: str


Check = Callable[[Sequence[Module]], Iterator[Finding]]


@dataclass(frozen=True)
class Rule:
    """One row of the house rules. A sample is a little project: file names to sources."""

    name: str
    why: str
    instead: str
    check: Check
    breaks: Sequence[Mapping[str, str]]
    keeps: Sequence[Mapping[str, str]]


def each(check: Callable[[Module], Iterator[Finding]]) -> Check:
    """A rule that looks at one file at a time."""

    def all_of_them(modules: Sequence[Module]) -> Iterator[Finding]:
        for module in modules:
            yield from check(module)

    return all_of_them


# ---------------------------------------------------------------- what a line may import


def import_direction(module: Module) -> Iterator[Finding]:
    if not module.in_package or not module.room:
        return
    if module.room not in FLOOR:
        yield Finding(module.path, 1, f"the room {module.room!r} is not in the list of rooms")
        return
    for line, name in module.imports:
        room = room_of(name)
        if room in {"", "__version__"}:
            continue
        if room not in FLOOR:
            yield Finding(module.path, line, f"imports {name}, a room that is not in the list of rooms")
        elif FLOOR[room] > FLOOR[module.room]:
            yield Finding(module.path, line, f"the room {module.room} imports {name}, which lies further out")


def import_graph(modules: Sequence[Module]) -> dict[str, set[str]]:
    known = {module.name for module in modules if module.in_package}
    graph: dict[str, set[str]] = {}
    for module in modules:
        if module.in_package:
            targets = {name if name in known else name.rpartition(".")[0] for _, name in module.imports}
            graph[module.name] = (targets & known) - {module.name}
    return graph


def import_circles(modules: Sequence[Module]) -> Iterator[Finding]:
    graph = import_graph(modules)
    paths = {module.name: module.path for module in modules}
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> Iterator[list[str]]:
        for target in sorted(graph[name]):
            if target in trail:
                yield [*trail[trail.index(target) :], target]
            elif target not in done:
                yield from walk(target, [*trail, target])
        done.add(name)

    for name in sorted(graph):
        if name not in done:
            for circle in walk(name, [name]):
                yield Finding(paths[circle[0]], 1, "an import circle: " + " > ".join(circle))


def relative_imports(module: Module) -> Iterator[Finding]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield Finding(module.path, node.lineno, "a relative import")


def only_a_docstring(module: Module) -> Iterator[Finding]:
    if not module.in_package or not module.path.endswith("/__init__.py"):
        return
    if ast.get_docstring(module.tree) is None:
        yield Finding(module.path, 1, "no docstring that says what the room is for")
    for node in module.tree.body:
        version = (
            module.name == "inferxgate"
            and isinstance(node, ast.Assign)
            and [ast.unparse(target) for target in node.targets] == ["__version__"]
        )
        if not version and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            yield Finding(module.path, node.lineno, "something other than a docstring")


def functions_in(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lazy_imports(module: Module) -> Iterator[Finding]:
    if not module.in_package or any(module.name == place or module.name.startswith(place + ".") for place in LAZY):
        return
    for function in functions_in(module.tree):
        for node in ast.walk(function):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield Finding(module.path, node.lineno, f"{function.name} imports inside the function")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"}:
            yield Finding(module.path, node.lineno, "imports a module by name")


def library_rooms(module: Module) -> Iterator[Finding]:
    if not module.in_package:
        return
    for line, name in module.imports:
        rooms, reason = LIBRARIES.get(name.split(".")[0], ((), ""))
        if rooms and module.room not in rooms:
            yield Finding(module.path, line, f"imports {name}, which only {' and '.join(rooms)} may: {reason}")


# ---------------------------------------------------------------- what a line may say

SQL = re.compile(
    r"\b(?:SELECT\b.+\bFROM|INSERT\s+(?:OR\s+\w+\s+)?INTO|UPDATE\b.+\bSET|DELETE\s+FROM"
    r"|(?:CREATE|ALTER|DROP)\s+(?:UNIQUE\s+)?(?:TABLE|INDEX|VIEW|TRIGGER)|PRAGMA\s+\w|BEGIN\s+(?:IMMEDIATE|EXCLUSIVE))\b",
    re.DOTALL,
)


def texts_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The string constants, docstrings and other bare strings left out."""
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
            yield node.lineno, node.value


def sql_outside_the_store(module: Module) -> Iterator[Finding]:
    if module.in_package and module.room != "store":
        for line, text in texts_in(module.tree):
            if SQL.search(text):
                yield Finding(module.path, line, "SQL outside the store")


def conditions_in(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If | ast.IfExp | ast.While | ast.Assert):
            yield node.test
        elif isinstance(node, ast.comprehension):
            yield from node.ifs
        elif isinstance(node, ast.match_case):
            yield node.pattern
            if node.guard:
                yield node.guard
        elif isinstance(node, ast.Compare) or (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in {"startswith", "endswith", "removeprefix"}
        ):
            yield node


def vendors_named(condition: ast.AST) -> Iterator[tuple[int, str]]:
    for line, text in texts_in(condition):
        yield from ((line, word) for word in VENDORS & set(re.split(r"[^a-z]+", text.lower())))
    for node in ast.walk(condition):
        if isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            words = set(name.lower().split("_"))
            # is_azure and Kind.AZURE ask for the vendor; openai_chat is the name of a dialect
            if words & VENDORS and words - VENDORS <= {"is", "kind", "provider", "vendor"}:
                yield node.lineno, name


def vendor_conditions(module: Module) -> Iterator[Finding]:
    if module.in_package and module.room not in {"providers", "dialects"}:
        found = {pair for condition in conditions_in(module.tree) for pair in vendors_named(condition)}
        for line, word in sorted(found):
            yield Finding(module.path, line, f"a condition names the vendor {word}")


def middleware_class(module: Module) -> Iterator[Finding]:
    for node in ast.walk(module.tree):
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        if isinstance(node, ast.alias):
            name = node.name
        if name == "BaseHTTPMiddleware":
            yield Finding(module.path, getattr(node, "lineno", 1), "BaseHTTPMiddleware")


def request_url(module: Module) -> Iterator[Finding]:
    if module.room != "server":
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.attr in {"url", "base_url"}:
            owner = ast.unparse(node.value).split(".")[-1]
            if owner in {"request", "req", "connection", "conn"}:
                yield Finding(module.path, node.lineno, f"reads {owner}.{node.attr}")


# ---------------------------------------------------------------- exceptions to the tools, and their reasons

IGNORE = re.compile(r"#\s*(?:noqa|type:\s*ignore)\b", re.IGNORECASE)
CODED_IGNORE = re.compile(
    r"#\s*(?:noqa:\s*[A-Z]+[0-9]+(?:\s*,\s*[A-Z]+[0-9]+)*|type:\s*ignore\[[a-z0-9-]+(?:,\s*[a-z0-9-]+)*\])"
)
WHOLE_FILE = re.compile(r"#\s*(?:ruff:\s*noqa|flake8:\s*noqa|mypy:\s*\w)")


def ignores(module: Module) -> Iterator[Finding]:
    for line, comment in module.comments.items():
        if WHOLE_FILE.search(comment):
            yield Finding(module.path, line, "switches a tool off for the whole file")
        elif IGNORE.search(comment):
            rest = CODED_IGNORE.sub("", comment)
            if IGNORE.search(rest):
                yield Finding(module.path, line, "an ignore without a code")
            elif len(re.findall(r"[A-Za-z]{2,}", rest)) < 3:
                yield Finding(module.path, line, "an ignore without a reason after the code")


UNCOUNTED = re.compile(r"#\s*pragma\W*no\W*(?:cover|branch)", re.IGNORECASE)
REASONED_UNCOUNTED = re.compile(r"# pragma: no (?:cover|branch) - (?:\S+ ){2}\S")


def uncounted_lines(module: Module) -> Iterator[Finding]:
    for line, comment in module.comments.items():
        if UNCOUNTED.search(comment) and not REASONED_UNCOUNTED.search(comment):
            yield Finding(module.path, line, "a line that coverage is not to count, without a reason")


def broad_excepts(module: Module) -> Iterator[int]:
    def broad(node: ast.expr | None) -> bool:
        nodes = node.elts if isinstance(node, ast.Tuple) else [node]
        return any(item is None or ast.unparse(item) in {"Exception", "BaseException"} for item in nodes)

    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler) and broad(node.type):
            yield node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "suppress":
            yield from (node.lineno for argument in node.args if broad(argument))


def unexplained_broad_excepts(module: Module) -> Iterator[Finding]:
    if module.in_package:
        for line in broad_excepts(module):
            if not any(near in module.comments for near in (line - 1, line, line + 1)):
                yield Finding(module.path, line, "a broad except without a sentence that says why")


def too_many_broad_excepts(modules: Sequence[Module]) -> Iterator[Finding]:
    package = [module for module in modules if module.in_package]
    places = [(module.path, line) for module in package for line in broad_excepts(module)]
    allowed = max(1, sum(module.line_count for module in package) // LINES_PER_BROAD_EXCEPT)
    if len(places) > allowed:
        for path, line in places:
            yield Finding(path, line, f"one of {len(places)} broad excepts where {allowed} are allowed")


# ---------------------------------------------------------------- size


def long_files(module: Module) -> Iterator[Finding]:
    if module.line_count >= FILE_LINES:
        yield Finding(module.path, 1, f"{module.line_count} lines; fewer than {FILE_LINES} are allowed")


def long_functions(module: Module) -> Iterator[Finding]:
    for function in functions_in(module.tree):
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        if length >= FUNCTION_LINES:
            what = f"{function.name} has {length} lines; fewer than {FUNCTION_LINES} are allowed"
            yield Finding(module.path, function.lineno, what)


# ---------------------------------------------------------------- the table

RULES: Sequence[Rule] = (
    Rule(
        "imports point inwards",
        "a request walks through the rooms in one direction, so a room is read and tested with only those before it",
        "move the line to the room that answers its question, or hand the value in from outside",
        each(import_direction),
        breaks=[
            {"inferxgate/store/sqlite.py": "from inferxgate.server import app\n"},
            {"inferxgate/canonical/chat.py": "def f():\n    import inferxgate.cli.main\n"},
            {"inferxgate/errors.py": "from inferxgate import canonical\n"},
            {"inferxgate/helpers/text.py": "import re\n"},
            {"inferxgate/config_sources.py": "from inferxgate import runtime\n"},
        ],
        keeps=[
            {"inferxgate/server/app.py": "from inferxgate.store import records\nfrom inferxgate import __version__\n"},
            {"inferxgate/store/sqlite.py": "from inferxgate.store.records import User\nimport sqlite3\n"},
            {"tests/store/test_sqlite.py": "from inferxgate.cli import main\n"},
            {"inferxgate/config.py": "from inferxgate.config_sources import read_file\n"},
        ],
    ),
    Rule(
        "no import circles",
        "two modules that import each other can only be understood, tested and loaded together",
        "move what both need into a third module that imports neither",
        import_circles,
        breaks=[
            {
                "inferxgate/store/a.py": "from inferxgate.store import b\n",
                "inferxgate/store/b.py": "from inferxgate.store.c import x\n",
                "inferxgate/store/c.py": "def f():\n    from inferxgate.store.a import y\n",
            }
        ],
        keeps=[
            {
                "inferxgate/store/a.py": "from inferxgate.store import b, c\n",
                "inferxgate/store/b.py": "from inferxgate.store.c import x\n",
                "inferxgate/store/c.py": "import sqlite3\n",
            }
        ],
    ),
    Rule(
        "imports are absolute",
        "a reader, and the rule on directions, see the room by its name",
        "write the whole name: from inferxgate.room.module import name",
        each(relative_imports),
        breaks=[{"inferxgate/store/a.py": "from . import b\n"}, {"tests/test_a.py": "from ..store import b\n"}],
        keeps=[{"inferxgate/store/a.py": "from inferxgate.store import b\n"}],
    ),
    Rule(
        "an __init__ holds only a docstring",
        "importing one module of a room must not load the others, and a name has one place where it comes from",
        "import from the module that defines the name",
        each(only_a_docstring),
        breaks=[
            {"inferxgate/store/__init__.py": '"""Doc."""\nfrom inferxgate.store import sqlite\n'},
            {"inferxgate/store/__init__.py": '"""Doc."""\n__version__ = "1"\n'},
            {"inferxgate/store/__init__.py": ""},
        ],
        keeps=[
            {"inferxgate/__init__.py": '"""Doc."""\n\n__version__ = "1"\n'},
            {"inferxgate/store/__init__.py": '"""Doc."""\n'},
        ],
    ),
    Rule(
        "functions do not import",
        "what a module needs stands at its top; laziness is kept to where the start of a command pays for it",
        "import at the top, or name the place and its reason in LAZY",
        each(lazy_imports),
        breaks=[
            {"inferxgate/store/a.py": "def f():\n    import json\n"},
            {"inferxgate/gateway/a.py": "class C:\n    async def f(self):\n        from json import loads\n"},
            {"inferxgate/gateway/a.py": "import importlib\nx = importlib.import_module('json')\n"},
        ],
        keeps=[
            {"inferxgate/cli/main.py": "def f():\n    import json\n"},
            {"inferxgate/store/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import json\n"},
        ],
    ),
    Rule(
        "libraries stay in their rooms",
        "a library that one room knows can be replaced there, and costs its import only to those who need it",
        "ask the room that has the library, through its own functions",
        each(library_rooms),
        breaks=[
            {"inferxgate/server/app.py": "import sqlite3\n"},
            {"inferxgate/upstream/http.py": "from httpx import AsyncClient\n"},
            {"inferxgate/gateway/pipeline.py": "import httptools\n"},
        ],
        keeps=[
            {"inferxgate/store/sqlite.py": "import sqlite3\n", "inferxgate/cli/chat.py": "import httpx\n"},
            {"tests/test_a.py": "import httpx\nimport sqlite3\n"},
        ],
    ),
    Rule(
        "SQL stays in the store",
        "statements in one room can all be seen to be parameterised, and another database can stand beside SQLite",
        "give the store a method for the question and call that",
        each(sql_outside_the_store),
        breaks=[
            {"inferxgate/reports.py": 'Q = """SELECT count(*)\n FROM usage"""\n'},
            {"inferxgate/accounts/keys.py": "def f(c, t):\n    c.execute(f'DELETE FROM {t}')\n"},
        ],
        keeps=[
            {"inferxgate/store/sqlite.py": "Q = 'SELECT 1 FROM usage'\n"},
            {"inferxgate/reports.py": 'def f():\n    """SELECT a FROM b."""\n    return "select a model"\n'},
        ],
    ),
    Rule(
        "no condition names a vendor",
        "what differs between vendors is a row in providers or a function in dialects; a vendor tested for in shared"
        " code must be found again in every such place when the next vendor comes",
        "give the provider's row a field that says what differs, and test that field",
        each(vendor_conditions),
        breaks=[
            {"inferxgate/gateway/routing.py": "def f(p):\n    if p.name == 'openai':\n        return 1\n"},
            {"inferxgate/gateway/routing.py": "def f(p):\n    return p.startswith('gpt-')\n"},
            {"inferxgate/server/chat.py": "def f(p):\n    return 1 if p.is_azure else 2\n"},
            {"inferxgate/config.py": "def f(e):\n    return [k for k in e if k in ('OPENAI_API_KEY',)]\n"},
            {"inferxgate/gateway/a.py": "def f(p):\n    match p:\n        case 'anthropic':\n            return 1\n"},
        ],
        keeps=[
            {"inferxgate/providers/rows.py": "def f(p):\n    if p == 'openai':\n        return 1\n"},
            {"inferxgate/gateway/a.py": "ROW = {'openai': 1}\nif p in ROW:\n    x = ROW['openai']\n"},
            {"inferxgate/server/chat.py": "def f(r):\n    if r.dialect is openai_chat.DIALECT:\n        return 1\n"},
        ],
    ),
    Rule(
        "no BaseHTTPMiddleware",
        "it costs 0.3 to 0.4 milliseconds a request and hinders cancelling; a plain ASGI one costs a thousandth",
        "write a class with async __call__(scope, receive, send)",
        each(middleware_class),
        breaks=[
            {"inferxgate/server/a.py": "from starlette.middleware.base import BaseHTTPMiddleware\n"},
            {"inferxgate/server/a.py": "class M(starlette.middleware.base.BaseHTTPMiddleware):\n    pass\n"},
        ],
        keeps=[{"inferxgate/server/a.py": "from starlette.middleware import Middleware\n"}],
    ),
    Rule(
        "the server does not read request.url",
        "it is put together from the Host header, so a forged Host makes its path differ from the route that was taken:"
        " whoever authorises or branches on it can be walked around",
        "attach the decision to the route; where the path itself is needed, read scope['path']",
        each(request_url),
        breaks=[
            {"inferxgate/server/a.py": "def f(request):\n    return request.url.path\n"},
            {"inferxgate/server/a.py": "class C:\n    def f(self):\n        return self.request.base_url\n"},
        ],
        keeps=[
            {"inferxgate/server/a.py": "def f(request):\n    return request.scope['path']\n"},
            {"inferxgate/upstream/http.py": "def f(request):\n    return request.url\n"},
        ],
    ),
    Rule(
        "every ignore has a code and a reason",
        "an ignore without a code hides the next mistake on that line too; one without a reason can never be removed",
        "write # noqa: CODE and a sentence, or # type: ignore[code]  # and a sentence",
        each(ignores),
        breaks=[
            {"tests/a.py": "x = 1  # noqa\n"},
            {"tests/a.py": "x = 1  # noqa: S101\n"},
            {"tests/a.py": "x = 1  # type: ignore\n"},
            {"tests/a.py": "x = 1  # type: ignore  # the library has no types yet\n"},
            {"inferxgate/a.py": "x = 1  # type: ignore[attr-defined]\n"},
            {"inferxgate/a.py": "# ruff: noqa: S101\n"},
            {"inferxgate/a.py": "# mypy: ignore-errors\n"},
        ],
        keeps=[
            {"tests/a.py": "x = 1  # noqa: S101, E501 - the sample is one line by nature\n"},
            {"tests/a.py": "x = 1  # type: ignore[attr-defined]  # the library has no types yet\n"},
            {"tests/a.py": "x = '# noqa'\n"},
        ],
    ),
    Rule(
        "what coverage does not count has a reason",
        "a line that no test reaches may not work, so a reader must see why none can; one without a reason would"
        " be counted all the same, for the settings of coverage ask for it too",
        "write a test that reaches it, or remove what cannot be reached, or write # pragma: no cover - and a sentence",
        each(uncounted_lines),
        breaks=[
            {"inferxgate/a.py": "if x:  # pragma: no cover\n    y = 1\n"},
            {"inferxgate/a.py": "if x:  # pragma: no branch\n    y = 1\n"},
            {"inferxgate/a.py": "if x:  # pragma: no cover - never\n    y = 1\n"},
            {"inferxgate/a.py": "if x:  #pragma:nocover because of something else\n    y = 1\n"},
            {"tests/a.py": "if x:  # PRAGMA NO COVER\n    y = 1\n"},
        ],
        keeps=[
            {"inferxgate/a.py": "if x:  # pragma: no cover - only Python 3.11 comes here\n    y = 1\n"},
            {"inferxgate/a.py": "while x:  # pragma: no branch - its body always returns\n    y = 1\n"},
            {"inferxgate/a.py": "x = '# pragma: no cover'\n"},
        ],
    ),
    Rule(
        "every broad except says why",
        "it catches the mistakes of tomorrow as well, so a reader must see why that is wanted here",
        "catch what the call can raise; where everything must be caught, add the sentence that says why",
        each(unexplained_broad_excepts),
        breaks=[
            {"inferxgate/a.py": "try:\n    x = 1\nexcept Exception:\n    pass\n"},
            {"inferxgate/a.py": "try:\n    x = 1\nexcept (ValueError, BaseException):\n    raise\n"},
            {"inferxgate/a.py": "with contextlib.suppress(Exception):\n    x = 1\n"},
            {"inferxgate/a.py": "try:\n    x = 1\nexcept:\n    pass\n"},
        ],
        keeps=[
            {"inferxgate/a.py": "try:\n    x = 1\nexcept Exception:  # the client gets an answer\n    pass\n"},
            {"inferxgate/a.py": "try:\n    x = 1\nexcept ValueError:\n    pass\n"},
        ],
    ),
    Rule(
        "broad excepts are few",
        f"more than one in {LINES_PER_BROAD_EXCEPT} lines means that failures are being hidden instead of named",
        "name the exceptions in the ones that can be named",
        too_many_broad_excepts,
        breaks=[{"inferxgate/a.py": "try:\n    x = 1\nexcept Exception:\n    pass\n" * 2}],
        keeps=[
            {"inferxgate/a.py": "try:\n    x = 1\nexcept Exception:\n    pass\n"},
            {"inferxgate/a.py": "try:\n    x = 1\nexcept Exception:\n    pass\n" * 2 + "x = 1\n" * 1000},
        ],
    ),
    Rule(
        f"files have fewer than {FILE_LINES} lines",
        "a file of that size answers more than one question",
        "split it where the questions part",
        each(long_files),
        breaks=[{"tests/a.py": "x = 1\n" * FILE_LINES}],
        keeps=[{"inferxgate/a.py": "x = 1\n" * (FILE_LINES - 1)}],
    ),
    Rule(
        f"functions have fewer than {FUNCTION_LINES} lines",
        "nobody keeps that much in mind at once",
        "give its steps names",
        each(long_functions),
        breaks=[{"inferxgate/a.py": "class C:\n    async def f(self):\n" + "        x = 1\n" * (FUNCTION_LINES - 1)}],
        keeps=[{"inferxgate/a.py": "def f():\n" + "    x = 1\n" * (FUNCTION_LINES - 2)}],
    ),
)


# ---------------------------------------------------------------- the tests


@cache
def house() -> tuple[Module, ...]:
    folders = ("inferxgate", "tests", ".ci")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py") if "node_modules" not in path.parts]
    return tuple(Module(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in sorted(paths))


def project(files: Mapping[str, str]) -> list[Module]:
    return [Module(path, source) for path, source in files.items()]


def report(rule: Rule, findings: Iterable[Finding]) -> str:
    places = "\n".join(f"  {finding.path}:{finding.line}: {finding.what}" for finding in findings)
    return f"\nHouse rule: {rule.name}.\n{places}\nWhy: {rule.why}.\nInstead: {rule.instead}."


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_house_keeps(rule: Rule) -> None:
    findings = list(rule.check(house()))
    if findings:
        pytest.fail(report(rule, findings), pytrace=False)


def test_the_rules_look_at_the_whole_house() -> None:
    paths = {module.path for module in house()}
    assert {"inferxgate/errors.py", "inferxgate/store/protocol.py", "tests/test_house.py"} <= paths
    assert {path.stem for path in (ROOT / "inferxgate").iterdir()} & set(FLOOR) <= {module.room for module in house()}


def test_sql_made_of_strings_is_an_error_of_the_linter() -> None:
    """S608 finds queries put together from strings, which is how every injection starts; nobody may switch it off."""
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["ruff"]["lint"]
    assert any("S608".startswith(code) for code in lint["select"]), "the linter no longer looks for SQL made of strings"
    ignored = [lint.get("ignore", []), *lint.get("per-file-ignores", {}).values()]
    switched_off = [code for codes in ignored for code in codes if "S608".startswith(code)]
    assert not switched_off, "a query made of strings is open to injection; use parameters instead of ignoring S608"
    waived = [
        f"{module.path}:{line}"
        for module in house()
        for line, comment in module.comments.items()
        if re.search(r"noqa:[^#]*\bS608\b", comment)
    ]
    assert not waived, (
        f"a query made of strings is open to injection; use parameters instead of ignoring S608: {waived}"
    )


def test_coverage_leaves_out_only_what_says_why() -> None:
    """Coverage's own lists would leave out any line with the bare words, and some without a word."""
    report = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["coverage"]["report"]
    left_out = {name: value for name, value in report.items() if name not in {"show_missing", "fail_under"}}
    assert {name: len(patterns) for name, patterns in left_out.items()} == {"exclude_lines": 1, "partial_branches": 1}
    for name, words in (("exclude_lines", "no cover"), ("partial_branches", "no branch")):
        assert re.search(left_out[name][0], f"x = 1  # pragma: {words} - only Python 3.11 comes here")
        assert not re.search(left_out[name][0], f"x = 1  # pragma: {words}")
        assert not re.search(left_out[name][0], f"x = 1  # pragma: {words} - never")


BREAKS = [(rule, sample) for rule in RULES for sample in rule.breaks]
KEEPS = [(rule, sample) for rule in RULES for sample in rule.keeps]


@pytest.mark.parametrize(("rule", "files"), BREAKS, ids=lambda value: getattr(value, "name", ""))
def test_a_rule_finds_what_breaks_it(rule: Rule, files: Mapping[str, str]) -> None:
    findings = list(rule.check(project(files)))
    assert findings
    assert rule.why in report(rule, findings)


@pytest.mark.parametrize(("rule", "files"), KEEPS, ids=lambda value: getattr(value, "name", ""))
def test_a_rule_lets_pass_what_keeps_it(rule: Rule, files: Mapping[str, str]) -> None:
    findings = list(rule.check(project(files)))
    assert not findings, report(rule, findings)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_has_samples_of_both_kinds(rule: Rule) -> None:
    assert rule.breaks
    assert rule.keeps
