"""The documents cannot rot: what they name exists, what they quote was measured.

Knows the forms in which documents speak of the project: commands, make targets, links, modules,
settings, link parameters, numbers between markers. Does not judge the prose. The decision a reader
would question: commands are parsed by the real argument parsers, so examples are written with real
values instead of placeholders.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from nla_core import links
from precompute.cli import VERBS, Verb, build_parser
from scripts.quote_eval import MARKER, documents, figures_of, look_up, quoted, reports, source_of
from tests.test_import_rules import MODULES, imports

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
LINKS = (ROOT / "docs/links.md").read_text(encoding="utf-8")
DOCUMENTS = documents()

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)
IMAGE = re.compile(r"""<(?:img|source)\s[^>]*?(?:src|srcset)="([^"]+)\"""")
LINK = re.compile(r"\]\(([^()\s]+)\)")
# What the distribution is called where it differs from what is imported.
DISTRIBUTIONS = {
    "faiss": "faiss-cpu",
    "pydantic_core": "pydantic",  # which names the one version that it works with
    "yaml": "pyyaml",
    "sklearn": "scikit-learn",
}


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _prose(text: str) -> str:
    return FENCE.sub("", text)


def commands(text: str) -> Iterator[str]:
    """Shell lines of fences and code spans; continued lines joined, comments and prompts off."""
    for language, body in FENCE.findall(text):
        if language in ("bash", "sh", "console"):
            for line in body.replace("\\\n", " ").splitlines():
                if command := line.removeprefix("$ ").split(" #")[0].strip():
                    yield command
    yield from (span.strip() for span in SPAN.findall(_prose(text)))


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    kept = re.sub(r"[^\w\s-]", "", heading.strip().casefold().replace("`", ""))
    return re.sub(r"\s", "-", kept)


def pins(name: str) -> dict[str, str]:
    """Distribution (lower case, hyphens) -> version of one requirements file."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line and not line.startswith(("#", "-r "))]
    matches = [re.fullmatch(r"([\w.-]+)(?:\[\w+\])?==([\w.+]+)", line) for line in wanted]
    assert all(matches), f"{name} holds a line that is no exact pin: {wanted}"
    return {match[1].lower().replace("_", "-"): match[2] for match in matches if match}


def section(heading: str, text: str = README) -> str:
    """What stands below a second-level heading."""
    return text.split(f"## {heading}\n")[1].split("\n## ")[0]


# ---- commands ------------------------------------------------------------------------------------


def _precompute_commands() -> list[tuple[str, str]]:
    """(where it stands, the words after `python -m precompute`)."""
    found = [
        (_name(path), command)
        for path in DOCUMENTS
        for command in commands(path.read_text(encoding="utf-8"))
    ]
    found += [
        (f"--help of {verb.name}", line.strip())
        for verb in VERBS
        for line in _example(verb).splitlines()
    ]
    pattern = re.compile(r"(?:\S*/)?python3? -m precompute\s+(\S.*)")
    return [(where, match[1]) for where, text in found if (match := pattern.match(text))]


def _example(verb: Verb) -> str:
    """Read off the source, so that collecting tests imports no model library."""
    path = ROOT / (verb.module.replace(".", "/") + ".py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else []:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "EXAMPLE":
            return str(ast.literal_eval(node.value))
    return ""


def test_some_commands_are_documented() -> None:
    verbs = {words.split()[0] for where, words in _precompute_commands() if where == "README.md"}
    assert {"run", "verify", "doctor", "testset", "eval", "train"} <= verbs


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_verb_has_an_example(verb: Verb) -> None:
    assert _example(verb).startswith(f"python -m precompute {verb.name} ")


@pytest.mark.parametrize(("where", "words"), _precompute_commands())
def test_precompute_commands_are_understood(
    where: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = shlex.split(words)
    expected = 0 if "--help" in arguments else None
    left = exit_code(arguments)
    assert left == expected, f"{where}: `{words}` is refused: {capsys.readouterr().err}"


def exit_code(arguments: list[str]) -> int | str | None:
    """What the parser of `precompute` leaves with; None where it takes the arguments."""
    try:
        build_parser(arguments[0]).parse_args(arguments)
    except SystemExit as left:
        return left.code
    return None


def test_wrong_commands_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["verify", "data/demo", "--no-such-flag"]) == 2
    assert exit_code(["no-such-verb"]) == 2
    assert "no-such-verb" in capsys.readouterr().err


def test_the_readme_lists_the_verbs() -> None:
    listed = dict(
        re.findall(r"^\| `([\w-]+)` \| (.+) \|$", section("Precompute a dataset"), re.MULTILINE)
    )
    assert listed == {verb.name: verb.about for verb in VERBS}


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_other_modules_that_are_run_exist(path: Path) -> None:
    for command in commands(path.read_text(encoding="utf-8")):
        if found := re.match(
            r"(?:\S*/)?python3? (?:-m ((?:nla_core|scripts)[\w.]*)|(\S+\.py))", command
        ):
            file = found[2] or found[1].replace(".", "/") + ".py"
            assert (ROOT / file).is_file(), f"{_name(path)} runs {file}, which does not exist"


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_make_targets_exist(path: Path) -> None:
    known = set(TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
    assert {"app", "test", "check"} <= known
    for command in commands(path.read_text(encoding="utf-8")):
        words = command.split()
        if words[:1] == ["make"]:
            named = {word for word in words[1:] if re.fullmatch(r"[a-z-]+", word)}
            assert named <= known, f"{_name(path)}: `{command}` names {named - known}"


def test_the_quickstart_is_two_commands() -> None:
    _, body = FENCE.findall(section("Quickstart"))[0]
    assert [line.split("#")[0].strip() for line in body.splitlines()] == ["make app", "make test"]


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "data/demo/CURRENT").exists(), reason="no demo dataset yet")
def test_the_python_of_the_readme_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    sources = [body for language, body in FENCE.findall(README) if language == "python"]
    assert len(sources) == 2
    for source in sources:
        exec(compile(source, "README.md", "exec"), {})
        assert len(capsys.readouterr().out.splitlines()) >= 5


# ---- links and pictures --------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_relative_links_and_pictures_resolve(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in LINK.findall(_prose(text)) + IMAGE.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        resolved = (path.parent / file).resolve() if file else path
        assert resolved.exists(), f"{_name(path)} links to {target}, which does not exist"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", resolved.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), f"{_name(path)}: no heading for {target}"


# ---- what ARCHITECTURE.md says of the code -------------------------------------------------------


def modules_of_picture(text: str) -> set[str]:
    """Paths of the layout picture, the fence in which `nla_core/` begins a line."""
    body = next(body for _, body in FENCE.findall(text) if re.search("^nla_core/", body, re.M))
    found: set[str] = set()
    folders: dict[int, str] = {}
    for line in filter(str.strip, body.splitlines()):
        indent = len(line) - len(line.lstrip())
        name = line.split()[0]
        folders = {depth: folder for depth, folder in folders.items() if depth < indent}
        parent = folders[max(folders)] if folders else ""
        found.add(parent + name)
        if name.endswith("/"):
            folders[indent] = parent + name
    return found


def test_the_picture_shows_the_tree_as_it_is() -> None:
    picture = modules_of_picture(ARCHITECTURE)
    gone = {entry for entry in picture if not (ROOT / entry).exists()}
    assert not gone, f"ARCHITECTURE.md shows what does not exist: {sorted(gone)}"
    modules = {
        _name(path)
        for path in MODULES
        if path.name not in ("__init__.py", "__main__.py") and not _name(path).startswith("tests/")
    }
    missing = modules - picture
    assert not missing, f"ARCHITECTURE.md does not show {sorted(missing)}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_modules_named_in_prose_exist(path: Path) -> None:
    for span in SPAN.findall(_prose(path.read_text(encoding="utf-8"))):
        if re.fullmatch(r"[\w./-]+\.(py|toml|yaml|css|js)", span):
            tails = list(ROOT.glob(span)) or [
                module for module in MODULES if _name(module).endswith("/" + span)
            ]
            names = {"nla_meta.yaml"}  # a name that a pair's folders carry
            assert tails or span in names, f"{_name(path)} names {span}, which does not exist"


def test_each_dependency_is_justified() -> None:
    reasons = section("Dependencies", ARCHITECTURE)
    named = {name.lower().replace("_", "-") for name in SPAN.findall(reasons)}
    missing = {*pins("requirements.txt"), *pins("requirements-dev.txt")} - named
    assert not missing, f"ARCHITECTURE.md does not say why it needs {sorted(missing)}"


OPTIONAL = {"inspect-ai"}
"""Imported where a user has it; what is missing without it is said in words."""


def test_what_is_imported_is_pinned() -> None:
    import sys

    local = {path.name for path in ROOT.iterdir()} | {"tests"}
    foreign = {
        name.partition(".")[0]
        for path in MODULES
        if not _name(path).startswith("tests/")
        for name in imports(path.read_text(encoding="utf-8"))
    } - set(sys.stdlib_module_names)
    wanted = {
        DISTRIBUTIONS.get(name, name).replace("_", "-") for name in foreign if name not in local
    }
    assert {"streamlit", "torch", "duckdb"} <= wanted
    missing = wanted - {*pins("requirements.txt"), *pins("requirements-dev.txt"), *OPTIONAL}
    assert not missing, f"imported but not pinned: {sorted(missing)}"


# ---- settings, links, versions -------------------------------------------------------------------


def test_every_setting_is_documented() -> None:
    source = "\n".join(
        path.read_text(encoding="utf-8") for path in MODULES if not _name(path).startswith("tests/")
    )
    settings = set(re.findall(r"[\"'](NLA_[A-Z_]+)[\"']", source))
    assert "NLA_CACHE" in settings
    missing = {name for name in settings if f"`{name}`" not in README}
    assert not missing, f"README.md does not mention {sorted(missing)}"


def test_every_link_parameter_is_documented() -> None:
    pages = {
        "Links to a token or a list": links.ViewState.names(),
        "Links to a search": links.SearchView.names(),
        "Links to a comparison": links.CompareView.names(),
        "Links to an audit": links.AuditView.names(),
        "Links to a run": links.RunView.names(),
        "Links to an experiment": links.SteerView.names(),
    }
    for heading, params in pages.items():
        rows = re.findall(r"^\| (`[^|]+`) \|", section(heading, LINKS), re.MULTILINE)
        documented = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
        assert sorted(documented) == sorted(params)


def test_the_example_link_is_read_as_it_stands() -> None:
    (query,) = re.findall(r"/explore\?([^\s`]+)", LINKS)
    assert not links.ViewState.parse_query(query).problems
    assert links.ViewState.parse_query(query).view.query == query


def test_the_version_is_the_same_everywhere() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    (cited,) = re.findall(r"^version: (\S+)$", citation, re.MULTILINE)
    newest = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", changelog, re.MULTILINE)[0]
    assert cited == newest
    assert "## [Unreleased]" in changelog


# ---- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_quoted_numbers_are_the_measured_ones(path: Path) -> None:
    text, source = path.read_text(encoding="utf-8"), source_of(path)
    if not MARKER.search(text):
        return
    assert source.is_file(), f"{_name(path)} quotes numbers, but there is no {_name(source)}"
    report = figures_of(source)
    for found in MARKER.finditer(text):
        assert found[3] == look_up(report, found[2]), f"{_name(path)}: {found[0]}: `make numbers`"


def test_reports_are_those_of_the_figures() -> None:
    for folder, files in reports().items():
        for name, content in files.items():
            found = (folder / name).read_text(encoding="utf-8")
            assert found == content, f"{_name(folder / name)} is not of eval.json: `make numbers`"
        drawn = {path.name for path in folder.iterdir()}
        assert drawn == set(files), f"{_name(folder)} holds what no figure made"


def test_the_readme_quotes_its_numbers() -> None:
    assert {"fve", "fve_gold", "rank_at_1"} <= {found[2] for found in MARKER.finditer(README)}


def test_the_times_of_the_readme_are_filled_in() -> None:
    times = dict(re.findall(r"<!-- time:([\w-]+) -->(.*?)<!-- /time -->", README))
    assert {"app-first", "app-again", "test", "check"} == set(times)
    missing = [
        name for name, text in times.items() if not re.search(r"\d+ (seconds|minutes)", text)
    ]
    assert not missing, f"not measured yet: {missing}"


# ---- the checks themselves -----------------------------------------------------------------------


def test_markers_are_filled_and_unknown_keys_refused() -> None:
    report = {"fve": 0.12345, "n": 1500, "floors": {"mean": -0.1601}}
    text = "a <!-- eval:fve -->?<!-- /eval -->, b <!-- eval:floors.mean -->?<!-- /eval -->"
    assert quoted(text, report) == (
        "a <!-- eval:fve -->0.123<!-- /eval -->, b <!-- eval:floors.mean -->-0.160<!-- /eval -->"
    )
    assert look_up(report, "n") == "1,500"
    with pytest.raises(KeyError, match=r"floors\.worst"):
        look_up(report, "floors.worst")


def test_any_figure_can_be_quoted_and_none_that_was_not_measured() -> None:
    report = {
        "by_category": {"long text": {"fve": 0.25, "n": 48}, "256+": {"fve": 0.5}},
        "counts": [3, 4],
        "left_out": {"second_ar_fve": "no second AR was given"},
    }
    text = "<!-- eval:by_category.long text.fve --><!-- /eval -->"
    assert quoted(text, report) == "<!-- eval:by_category.long text.fve -->0.250<!-- /eval -->"
    assert look_up(report, "by_category.256+.fve") == "0.500"
    assert look_up(report, "counts.1") == "4"
    for key, why in (
        ("second_ar_fve", "no second AR was given"),
        ("by_category.long text", "several figures"),
        ("counts.2", "no 'counts.2'"),
    ):
        with pytest.raises(KeyError, match=why):
            look_up(report, key)


def test_commands_are_found_in_fences_and_spans() -> None:
    text = "Say `make app`.\n```bash\n$ python -m precompute run \\\n  --out x  # why\n```\n"
    assert list(commands(text)) == ["python -m precompute run    --out x", "make app"]


def test_headings_become_the_anchors_of_github() -> None:
    assert slug("Your own model, and `train`") == "your-own-model-and-train"


def test_the_picture_is_read_as_a_tree() -> None:
    text = "```\napp.py   shell\nnla_core/\n  ui/\n    a.py  x\n  b.py  y\npages/  z\n```\n"
    assert modules_of_picture(text) == {
        "app.py", "nla_core/", "nla_core/ui/", "nla_core/ui/a.py", "nla_core/b.py", "pages/",
    }  # fmt: skip
