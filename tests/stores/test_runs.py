"""Runs into stores: killed, gone on with elsewhere, damaged, cut off; fetched for the app."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from nla_core.data.dataset import Dataset
from nla_core.data.manifest import CURRENT, DATABASE, MANIFEST, PARQUET, FileEntry, read_manifest
from nla_core.data.publish import problems
from nla_core.data.transfer import Store, fetch
from nla_core.errors import NLAError
from precompute.mirror import find_workspace
from precompute.plan import Plan
from precompute.publish import publish_workspace
from precompute.run import execute
from precompute.workspace import RECEIPT, WORK
from tests.precompute.conftest import PROMPTS
from tests.precompute.fake import FakeExplainer, HashEmbedder, published, run_fake
from tests.stores.conftest import Server, needs_s3


def silent(_: str) -> None:
    pass


def stop_at(shard: int) -> FakeExplainer:
    """An explainer whose run is interrupted when it begins that shard."""
    calls = 0

    def before() -> None:
        nonlocal calls
        calls += 1
        if calls == shard:
            raise KeyboardInterrupt

    return FakeExplainer(before)


def damage(store: Store, name: str) -> None:
    content = store.read(name)
    assert content is not None
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    store.write(name, bytes(changed))


def rows_in(store: Store, plan: Plan, shard: str = "shard-00001") -> str:
    names = store.names(f"{WORK}/{plan.config_hash}/{shard}")
    return next(name for name in names if name.endswith("readings.parquet"))


def test_a_run_goes_on_where_another_machine_stopped(
    store: Store, plan: Plan, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_fake(plan, tmp_path / "lost", stop_at(3), store=store)
    assert sum(name.endswith(RECEIPT) for name in store.names()) == 2
    shutil.rmtree(tmp_path / "lost")
    explainer = FakeExplainer()
    version = run_fake(plan, tmp_path / "fresh", explainer, store=store)
    assert explainer.n_transcribed == len(PROMPTS) - 4
    assert published(tmp_path / "fresh") == reference
    assert fetch(store, tmp_path / "fetched", say=silent) == version
    assert published(tmp_path / "fetched") == reference
    dataset = Dataset.open(tmp_path / "fetched")
    assert problems(dataset.directory, dataset.manifest) == []


def test_what_was_made_while_the_store_was_away_is_sent_later(
    store: Store, plan: Plan, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_fake(plan, tmp_path / "out", stop_at(3))  # without the store
    explainer = FakeExplainer()
    run_fake(plan, tmp_path / "out", explainer, store=store)
    assert explainer.n_transcribed == len(PROMPTS) - 4
    assert sum(name.endswith(RECEIPT) for name in store.names()) == len(plan.shards)
    run_fake(plan, tmp_path / "other", stop_at(1), store=store)
    assert published(tmp_path / "other") == reference


def test_shards_of_workers_elsewhere_are_pulled_and_not_done_twice(
    store: Store, plan: Plan, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    """The second machine does the whole run while the first is in the middle of a shard."""
    calls = 0

    def overtaken() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            run_fake(plan, tmp_path / "second", store=store)

    run_fake(plan, tmp_path / "first", FakeExplainer(overtaken), store=store)
    assert calls == 2
    assert published(tmp_path / "first") == reference


@pytest.mark.parametrize("what", ["rows", "missing rows", "receipt", "foreign receipt"])
def test_a_damaged_shard_is_refused_and_named(
    store: Store, plan: Plan, tmp_path: Path, reference: dict[str, bytes], what: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_fake(plan, tmp_path / "lost", stop_at(3), store=store)
    rows = rows_in(store, plan)
    receipt = f"{WORK}/{plan.config_hash}/shard-00001/{RECEIPT}"
    if what == "rows":
        damage(store, rows)
    elif what == "missing rows":
        store.delete(rows)
    elif what == "receipt":
        store.write(receipt, b'{"files"')
    else:
        data = json.loads(store.read(receipt) or b"")
        store.write(receipt, json.dumps({**data, "folder": "../../../etc"}).encode())
    with pytest.raises(NLAError, match="shard-00001 is damaged"):
        run_fake(plan, tmp_path / "fresh", store=store)
    assert not list((tmp_path / "fresh").rglob(f"shard-00001/{RECEIPT}"))
    for name in store.names(receipt.rpartition("/")[0]):  # what the message says to do
        store.delete(name)
    run_fake(plan, tmp_path / "fresh", store=store)
    assert published(tmp_path / "fresh") == reference


@pytest.mark.parametrize(("after", "kept"), [(0, 0), (5, 2), (9, 3), (17, 4)])
def test_a_store_that_fails_in_the_middle_costs_no_finished_shard(
    store: Store,
    plan: Plan,
    tmp_path: Path,
    reference: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    after: int,
    kept: int,
) -> None:
    """`after` objects: that of the configuration, then three tables and a receipt a shard."""
    real, calls = Store.put, 0

    def failing(self: Store, file: Path, name: str) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            with self.told("writing", name):
                raise ConnectionError("gone")
        real(self, file, name)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", failing)
        with pytest.raises(NLAError, match="kept in the local folder"):
            run_fake(plan, tmp_path / "out", store=store)
    assert len(list((tmp_path / "out").rglob(RECEIPT))) == kept
    assert sum(name.endswith(RECEIPT) for name in store.names()) == after // 4
    explainer = FakeExplainer()
    run_fake(plan, tmp_path / "out", explainer, store=store)
    assert explainer.n_transcribed == max(len(PROMPTS) - 2 * kept, 0), "only the rest"
    fetch(store, tmp_path / "fetched", say=silent)
    assert published(tmp_path / "fetched") == reference


@needs_s3
def test_an_s3_server_that_dies_in_the_middle(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server()
    try:
        server.use(monkeypatch)
        store, calls = Store(server.bucket()), 0

        def dies() -> None:
            nonlocal calls
            calls += 1
            if calls == 2:
                server.stop()

        with pytest.raises(NLAError, match="kept in the local folder"):
            run_fake(plan, tmp_path / "out", FakeExplainer(dies), store=store)
    finally:
        server.stop()
    assert len(list((tmp_path / "out").rglob(RECEIPT))) == 2
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_readers_see_all_of_a_version_or_none(
    store: Store, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, order, seen = Store.put, [], set()

    def looking(self: Store, file: Path, name: str) -> None:
        if name.startswith("v-"):
            order.append(name.partition("/")[2])
            try:
                seen.add(fetch(self, tmp_path / f"look-{len(order)}", say=silent))
            except NLAError as error:
                seen.add(error.what)
        real(self, file, name)

    monkeypatch.setattr(Store, "put", looking)
    run_fake(plan, tmp_path / "out", store=store)
    assert order[-1] == MANIFEST
    assert len(order) == len(set(order)) > len(PARQUET)
    assert seen == {f"There is no dataset at {store.url}"}


@pytest.mark.parametrize("mark", ["readings.parquet", "explanations.f16.npy"])
def test_a_published_file_that_was_changed_is_refused(
    store: Store, plan: Plan, tmp_path: Path, reference: dict[str, bytes], mark: str
) -> None:
    version = run_fake(plan, tmp_path / "out", store=store)
    (name,) = (n for n in store.names(version) if n.endswith(mark))
    damage(store, name)
    with pytest.raises(NLAError, match="does not hold what the manifest") as error:
        fetch(store, tmp_path / "fetched", say=silent)
    assert mark in error.value.why
    assert list((tmp_path / "fetched").iterdir()) == []
    store.delete(name)  # what the message says to do
    run_fake(plan, tmp_path / "out", store=store)
    fetch(store, tmp_path / "fetched", say=silent)
    assert published(tmp_path / "fetched") == reference


def test_a_version_that_is_there_is_not_fetched_again(
    store: Store, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = run_fake(plan, tmp_path / "out", store=store)
    fetch(store, tmp_path / "fetched", say=silent)
    monkeypatch.setattr(Store, "get", lambda *_: pytest.fail("it was fetched again"))
    assert fetch(store, tmp_path / "fetched", say=silent) == version


def test_a_version_that_was_damaged_here_is_fetched_again(
    store: Store, plan: Plan, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    version = run_fake(plan, tmp_path / "out", store=store)
    fetch(store, tmp_path / "fetched", say=silent)
    (tmp_path / "fetched" / version / PARQUET["tokens"]).write_bytes(b"cut off")
    fetch(store, tmp_path / "fetched", say=silent)
    assert published(tmp_path / "fetched") == reference


@pytest.mark.parametrize("name", [MANIFEST, PARQUET["readings"]])
def test_whatever_was_damaged_here_does_not_stop_the_next_fetch(
    store: Store, plan: Plan, tmp_path: Path, reference: dict[str, bytes], name: str
) -> None:
    version = run_fake(plan, tmp_path / "out", store=store)
    fetch(store, tmp_path / "fetched", say=silent)
    (tmp_path / "fetched" / version / name).write_text("{")
    fetch(store, tmp_path / "fetched", say=silent)
    assert published(tmp_path / "fetched") == reference


def test_a_store_without_a_run_is_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NLAError, match="There is no run in") as error:
        find_workspace(tmp_path / "out", None, store)
    assert store.url in str(error.value)


def test_what_is_no_dataset(store: Store, plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(NLAError, match="There is no dataset"):
        fetch(store, tmp_path / "out", say=silent)
    store.write(CURRENT, b"../../etc\n")
    with pytest.raises(NLAError, match="is damaged"):
        fetch(store, tmp_path / "out", say=silent)
    with pytest.raises(NLAError, match="has no version"):
        fetch(store, tmp_path / "out", version="v-0123456789ab", say=silent)


@pytest.mark.parametrize("name", ["../../escaped", DATABASE, "vectors/explanations.faiss"])
def test_a_manifest_names_tables_and_vectors_alone(
    store: Store, plan: Plan, tmp_path: Path, name: str
) -> None:
    """It can write nowhere else, nor bring what the app would open instead of deriving its own."""
    good = read_manifest(tmp_path / "out" / run_fake(plan, tmp_path / "out", store=store))
    evil = replace(good, files={**good.files, name: FileEntry("0" * 64, 1)})
    store.write(f"{evil.version}/{MANIFEST}", json.dumps(evil.to_json()).encode())
    with pytest.raises(NLAError, match="is none of ours") as error:
        fetch(store, tmp_path / "fetched", version=evil.version, say=silent)
    assert name in error.value.why
    assert list((tmp_path / "fetched").iterdir()) == []


def test_publishing_from_a_machine_that_computed_nothing(
    store: Store, plan: Plan, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    execute(plan, tmp_path / "a", FakeExplainer, embedder=None, store=store)
    found = find_workspace(tmp_path / "b", None, store)
    assert found.config_hash == plan.config_hash
    publish_workspace(found, tmp_path / "b", HashEmbedder(), say=silent, store=store)
    fetch(store, tmp_path / "c", say=silent)
    assert published(tmp_path / "c") == published(tmp_path / "b") == reference
