"""If these fail, a map made on several machines is lost with one of them, or is another one."""

import json
import logging
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from test_merge import contents

from c2gm.runtime.cli import main
from c2gm.runtime.cluster import run_on_cluster
from c2gm.runtime.dispatch import draw_map, everywhere
from c2gm.runtime.errors import BackendError, OutputError, SceneError
from c2gm.runtime.infer import run
from c2gm.runtime.job import InferOptions
from c2gm.runtime.progress import QuietReport
from c2gm.runtime.shard_worker import Task, draw_shard, local_folder, look_ahead
from c2gm.runtime.shards import Shard

distributed = pytest.importorskip("distributed", reason="the extra c2gm[cluster]")

SHARDS = 4


class Told(QuietReport):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.notes = list[str]()

    def note(self, message: str) -> None:
        """One line."""
        self.notes.append(message)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


@pytest.fixture(scope="module")
def options(tiny_bundle: Path, small_scene: Path) -> InferOptions:
    """Some seconds of work, so that there is a middle to be killed in."""
    return InferOptions(small_scene, "13-16", model=tiny_bundle, steps=8, seed=5, guide_from=13)


@pytest.fixture(scope="module")
def whole(options: InferOptions, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """What one machine makes."""
    output = tmp_path_factory.mktemp("whole") / "small.mbtiles"
    run(replace(options, output=output), QuietReport())
    return contents(output)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where workers write until a shard is finished."""
    folder = tmp_path_factory.mktemp("scratch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield folder


def test_any_executor_draws_shards_and_goes_on_with_what_it_finds(
    options: InferOptions, whole: list[object], scratch: Path, tmp_path: Path
) -> None:
    mine = everywhere(replace(options, output=tmp_path / "small.mbtiles"))
    folder = tmp_path / "small.mbtiles.shards"
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
        outlook = executor.submit(look_ahead, mine).result()
        other = {**outlook.fingerprint, "seed": "6"}
        folder.mkdir()
        record = {"fingerprint": other, "shards": SHARDS}
        (folder / "run.json").write_text(json.dumps(record))
        with pytest.raises(OutputError, match="was begun by another run .seed was 6, now 5"):
            draw_map(executor, mine, outlook, 2, SHARDS, QuietReport())
        record["fingerprint"] = dict(outlook.fingerprint)
        (folder / "run.json").write_text(json.dumps(record))
        with pytest.raises(OutputError, match="shards was 4, now 3"):
            draw_map(executor, mine, outlook, 2, 3, QuietReport())
        for index in (1, 2):  # one is finished, one was damaged on its disk
            draw_shard(Task(mine, Shard(index, SHARDS), folder, outlook.fingerprint))
        second = folder / f"small.2-of-{SHARDS}.mbtiles"
        second.write_bytes(second.read_bytes()[:5000])
        told = Told()
        merged = draw_map(executor, mine, outlook, 2, None, told)
    assert merged.shards == SHARDS
    assert contents(mine.output_path) == whole
    assert any("which holds 1 of them" in note for note in told.notes)
    assert any("small.2-of-4.mbtiles is no MBTiles file, or damaged" in note for note in told.notes)
    assert any(note.startswith("4 of 4 shards: ") for note in told.notes)
    assert [path.name for path in tmp_path.iterdir()] == ["small.mbtiles"]


def test_what_a_worker_lacks_is_named(options: InferOptions, scratch: Path, tmp_path: Path) -> None:
    mine = everywhere(replace(options, output=tmp_path / "small.mbtiles"))
    with pytest.raises(SceneError, match=r"worker .*: there is no .*other.tif here; .* same path"):
        look_ahead(replace(mine, imagery=tmp_path / "other.tif"))
    outlook = look_ahead(mine)
    task = Task(mine, Shard(1, 2), tmp_path / "unseen", outlook.fingerprint)
    with pytest.raises(OutputError, match=r"no folder .*unseen of this run here"):
        draw_shard(task)
    task.folder.mkdir()
    other = {**outlook.fingerprint, "model": "another"}
    record = {"fingerprint": other, "shards": 2}
    (task.folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(OutputError, match="part of another map: model was another, now"):
        draw_shard(replace(task, fingerprint=other))


@pytest.fixture(scope="module")
def cluster(scratch: Path) -> Iterator["distributed.LocalCluster"]:
    """Two workers, each a process of its own with a nanny that starts it again.

    Each offers a GPU, as far as Dask knows: what `auto` is, is looked up there.
    """
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=":0",
        resources={"GPU": 1},
        silence_logs=logging.CRITICAL,
    ) as started:
        yield started


def pids(cluster: "distributed.LocalCluster") -> dict[str, int]:
    """Processes of the workers."""
    with distributed.Client(cluster, set_as_default=False) as client:
        return dict(client.run(os.getpid))


def test_a_killed_worker_and_a_killed_driver_lose_nothing(
    cluster: "distributed.LocalCluster",
    options: InferOptions,
    whole: list[object],
    scratch: Path,
    tmp_path: Path,
) -> None:
    output = tmp_path / "small.mbtiles"
    folder = tmp_path / "small.mbtiles.shards"
    flags = [
        *("--imagery", str(options.imagery), "--levels", options.levels, "--steps", "8"),
        *("--model", str(options.model), "--seed", "5", "--guide-from", "13"),
        *("--output", str(output)),
        *("--cluster", cluster.scheduler_address, "--shards", str(SHARDS), "--json"),
    ]
    workers = pids(cluster)
    program = [sys.executable, "-c", "from c2gm.runtime.cli import main; main()"]
    driver = subprocess.Popen(
        [*program, *flags], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    partials = f"{local_folder({}).parent.name}/*/*.mbtiles.partial"
    wait_for(lambda: len(list(scratch.glob(partials))) == 2, "both workers draw")
    os.kill(next(iter(workers.values())), signal.SIGKILL)
    wait_for(lambda: any(folder.glob("*.mbtiles")), "a shard is finished")
    driver.kill()
    driver.communicate()
    finished = len(list(folder.glob("*.mbtiles")))
    assert 0 < finished < SHARDS and not output.exists()

    told = Told()
    mine = replace(options, output=output)
    merged = run_on_cluster(mine, cluster.scheduler_address, None, told)
    assert merged.shards == SHARDS
    held = re.search(r"which holds (\d) of them", "\n".join(told.notes))
    assert held is not None and finished <= int(held[1]), "workers finish what they have begun"
    drawn = sum("was drawn on" in note for note in told.notes)
    assert drawn == SHARDS - int(held[1]), "what was finished is not drawn again"
    assert contents(output) == whole
    assert set(workers.values()) != set(pids(cluster).values()), "one was killed"
    assert [path.name for path in tmp_path.iterdir()] == ["small.mbtiles"]
    assert not list(scratch.glob("c2gm-*/*/*")), "workers keep nothing"


def test_clusters_that_cannot_serve_are_named(
    cluster: "distributed.LocalCluster",
    options: InferOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mine = replace(options, output=tmp_path / "small.mbtiles")
    address = cluster.scheduler_address
    with pytest.raises(BackendError, match="worker .*CUDA"):
        run_on_cluster(replace(mine, backend="cuda"), address, None, QuietReport())
    with distributed.LocalCluster(1, processes=False, dashboard_address=":0") as plain:
        with pytest.raises(BackendError, match="no worker of .* offers a GPU, which cuda needs"):
            run_on_cluster(
                replace(mine, backend="cuda"), plain.scheduler_address, None, QuietReport()
            )
    monkeypatch.setattr("c2gm.runtime.cluster.CONNECT_S", 0.3)
    with pytest.raises(BackendError, match=r"127.0.0.1:9 cannot be reached .*dask scheduler"):
        run_on_cluster(mine, "tcp://127.0.0.1:9", None, QuietReport())
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(BackendError, match=r"pip install 'c2gm\[cluster\]'"):
        run_on_cluster(mine, address, None, QuietReport())
    command = ["--imagery", str(mine.imagery), "--levels", "13", "--output", str(mine.output)]
    for more in (["--cluster", address, "--shard", "1/2"], ["--shards", "2"]):
        with pytest.raises(SystemExit) as left:
            main([*command, *more])
        assert left.value.code == 2
    assert "both --cluster and --shard" in capsys.readouterr().err
