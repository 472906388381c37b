"""Chat services through their own clients, against a server on this machine."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nla_core.errors import NLAError
from precompute.cli import main
from precompute.train.api_teacher import ApiTeacher, ChatClient, Ledger
from precompute.train.teachers import LabelRequest, Provider, StructuredTeacher
from tests.tiny import tiny_base
from tests.train.conftest import KEY, write_corpus
from tests.train.fake_chat import Handler, Service, dropped, garbage, serving, snippets, status

SOON = {"retry_after_ms": "1"}

Make = Callable[..., ChatClient]


@pytest.fixture(params=list(Provider))
def client(request: pytest.FixtureRequest, service: Service) -> Make:
    """A client of either service, asked of the server on this machine."""

    def make(tries: int = 3) -> ChatClient:
        return ChatClient.from_environment(
            request.param, "some-model", service.url, max_tokens=50, tries=tries, timeout_s=20
        )

    return make


def test_a_question_goes_out_as_the_service_wants_it(client: Make, service: Service) -> None:
    reply = client().ask("What is this?")
    (seen,) = service.seen
    headers = {name.lower(): value for name, value in seen["headers"].items()}
    assert seen["path"] in ("/v1/messages", "/chat/completions")
    assert headers["authorization"] == f"Bearer {KEY}"
    assert seen["body"] == {
        "model": "some-model",
        "max_tokens": 50,
        "messages": [{"role": "user", "content": "What is this?"}],
    }
    assert reply.text.startswith("Sure!")
    assert (reply.input_tokens, reply.output_tokens) == (11, 7)


def test_what_passes_is_tried_again(client: Make, service: Service) -> None:
    service.script = [status(429, **SOON), status(500, **SOON), status(529, **SOON)]
    assert client(tries=4).ask("x").text
    assert len(service.seen) == 4


def test_a_dropped_connection_is_tried_again(client: Make, service: Service) -> None:
    service.script = [dropped]
    assert client().ask("x").text
    assert len(service.seen) == 2


@pytest.mark.parametrize(
    ("code", "fix"),
    [
        (400, "Check --teacher-model and the account"),
        (401, "Check the key"),
        (403, "Check what the key"),
        (404, "Check --teacher-model and --base-url"),
    ],
)
def test_a_refusal_is_told_at_once_without_the_key(
    client: Make, service: Service, code: int, fix: str
) -> None:
    service.script = [status(code, f"no such key: {KEY}")]
    with pytest.raises(NLAError) as refused:
        client().ask("x")
    assert len(service.seen) == 1
    assert refused.value.why == f"HTTP {code}: no such key: [key]"
    assert refused.value.fix.startswith(fix)
    assert KEY not in str(refused.value)


@pytest.mark.parametrize("reply", [status(503, "busy", **SOON), status(429, "slow", **SOON)])
def test_what_keeps_failing_ends(client: Make, service: Service, reply: Callable) -> None:
    service.otherwise = reply
    with pytest.raises(NLAError, match="keeps failing") as failed:
        client(tries=2).ask("x")
    assert len(service.seen) == 2
    assert "HTTP " in failed.value.why


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"choices": [], "content": 3}', b"not json"])
def test_an_answer_of_another_form_is_told(client: Make, service: Service, body: bytes) -> None:
    service.otherwise = garbage(body)
    with pytest.raises(NLAError, match="keeps failing"):
        client(tries=1).ask("x")


def test_the_key_does_not_follow_a_redirect(client: Make, service: Service) -> None:
    with serving() as elsewhere:
        service.script = [status(307, Location=elsewhere.url + "/v1/messages")]
        with pytest.raises(NLAError):
            client(tries=1).ask("x")
        assert elsewhere.seen == []


@pytest.mark.parametrize("provider", list(Provider))
def test_a_missing_package_is_named(
    service: Service, monkeypatch: pytest.MonkeyPatch, provider: Provider
) -> None:
    monkeypatch.setitem(sys.modules, str(provider), None)
    with pytest.raises(NLAError, match=f"needs the package '{provider}'") as refused:
        ChatClient.from_environment(provider, "some-model", service.url)
    assert "requirements-teachers.txt" in refused.value.fix


@pytest.mark.parametrize(
    ("key", "url", "said"),
    [
        (None, None, "There is no key for openai"),
        ("two words", None, "cannot be sent"),
        (KEY, "http://example.org/v1", "unencrypted"),
        (KEY, "ftp://example.org", "is not the address"),
        (KEY, "https://example.org/?a=1", "is not the address"),
    ],
)
def test_a_key_is_checked_before_it_is_sent(
    monkeypatch: pytest.MonkeyPatch, key: str | None, url: str | None, said: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(NLAError, match=said):
        ChatClient.from_environment(Provider.OPENAI, "some-model", url)


def test_a_server_of_ones_own_needs_no_key(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    client = ChatClient.from_environment(Provider.OPENAI, "some-model", service.url)
    assert client.ask("x").text
    assert KEY not in json.dumps(service.seen)


# ---- paid once -----------------------------------------------------------------------------------


def _teacher(client: ChatClient, path: Path, stand_in: StructuredTeacher) -> ApiTeacher:
    return ApiTeacher(client, Ledger(path), stand_in, workers=3)


def test_each_question_is_paid_once(
    client: Make,
    service: Service,
    tmp_path: Path,
    stand_in: StructuredTeacher,
    requests: list[LabelRequest],
) -> None:
    twice = [*requests, replace(requests[0], seed=99)]
    first = _teacher(client(), tmp_path / "paid.jsonl", stand_in)
    labels = first.label(twice)
    assert len(service.seen) == len(requests)
    assert labels[0] == labels[-1]
    again = _teacher(client(), tmp_path / "paid.jsonl", stand_in)
    assert again.label(twice) == labels
    assert len(service.seen) == len(requests)
    assert again.report() == f"{len(requests)} answers, {11 * 7} tokens in, {7 * 7} out"
    assert service.most_at_once <= 3


def test_questions_are_under_way_together(
    client: Make,
    service: Service,
    tmp_path: Path,
    stand_in: StructuredTeacher,
    requests: list[LabelRequest],
) -> None:
    meeting = threading.Barrier(3, timeout=20)  # breaks, and the test fails, if fewer come at once

    def met(handler: Handler, message: str) -> None:
        meeting.wait()
        handler.answer(snippets(message))

    service.script = [met] * 3
    labels = _teacher(client(tries=1), tmp_path / "paid.jsonl", stand_in).label(requests)
    assert {label.written_by for label in labels} == {"api"}
    assert service.most_at_once == 3


def test_answers_that_came_before_a_failure_are_kept(
    client: Make,
    service: Service,
    tmp_path: Path,
    stand_in: StructuredTeacher,
    requests: list[LabelRequest],
) -> None:
    path = tmp_path / "paid.jsonl"
    refusing = ApiTeacher(client(), Ledger(path), stand_in, workers=1)
    answer = service.otherwise
    service.script = [answer, answer, status(401)]
    with pytest.raises(NLAError, match="refuses"):
        refusing.label(requests)
    kept = len(Ledger(path))
    assert kept >= 2
    asked = len(service.seen)
    assert len(_teacher(client(), path, stand_in).label(requests)) == len(requests)
    assert len(service.seen) - asked == len(requests) - kept


def test_half_a_line_of_the_ledger_is_dropped_and_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "paid.jsonl"
    Ledger(path).add("a", "text", 1, 2)
    with path.open("a") as stream:
        stream.write('{"key": "b", "te')
    ledger = Ledger(path)
    ledger.add("c", "other", 1, 2)
    assert (len(Ledger(path)), Ledger(path).get("c")) == (2, "other")
    path.write_text("nonsense\n" + path.read_text())
    with pytest.raises(NLAError, match=r"paid\.jsonl, line 1 is not an answer"):
        Ledger(path)


def test_nothing_is_asked_without_a_yes(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["train", "data", "--corpus", str(write_corpus(tmp_path / "text.jsonl"))]
    data += ["--target", str(tiny_base(tmp_path / "base")), "--layer", "2", "--device", "cpu"]
    data += ["--dtype", "float32", "--ar-windows", "3", "--av-windows", "3", "--per-window", "2"]
    data += ["--val-windows", "2", "--rl-windows", "1", "--max-tokens", "48"]
    data += ["--out", str(tmp_path / "data"), "--teacher", "api", "--teacher-model", "some-model"]
    data += ["--base-url", service.url, "--price-in", "3", "--price-out", "15"]
    assert main(data) == 2
    assert "nobody agreed to the cost" in capsys.readouterr().err
    assert service.seen == []
    assert main([*data, "--yes"]) == 0
    assert service.seen
    record = json.loads((tmp_path / "data" / "data.json").read_text())
    assert set(record["labelled_by"]["av"]) == {"api"}
