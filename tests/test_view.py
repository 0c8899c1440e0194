"""The viewer without a browser: what is served, what is not, what is written, what is refused."""

import http.client
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from bad_files import Maker, raster, text
from hypothesis import given
from hypothesis import strategies as st
from mercantile import Tile
from painted import ATTRIBUTION, LEVELS, open_painting, paint, paint_map, picture_of, planned
from PIL import Image
from tiles import pixels_of, tiles_of

from c2gm.runtime.archive import partial_path
from c2gm.runtime.errors import MapError, OutputError
from c2gm.runtime.progress import QuietReport
from c2gm.runtime.scene import Scene
from c2gm.runtime.view_cli import EPILOG, main
from c2gm.runtime.viewer.export import export_folder
from c2gm.runtime.viewer.imagery import ImageryTiles
from c2gm.runtime.viewer.mbtiles_source import MbtilesSource, spoken_levels
from c2gm.runtime.viewer.page import View, tile_runs
from c2gm.runtime.viewer.server import HEADERS, ViewServer, open_server

Case = tuple[Callable[[Path], list[str]], int, str]


@pytest.fixture(scope="module")
def painted(small_scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_map(small_scene, tmp_path_factory.mktemp("painted") / "painted.mbtiles")


@pytest.fixture(scope="module")
def view(painted: Path, small_scene: Path) -> Iterator[View]:
    with closing(MbtilesSource.open(painted)) as source:
        with closing(ImageryTiles.open(small_scene, source, "somebody")) as imagery:
            yield View(source, imagery)


@contextmanager
def serving(view: View, notes: list[str] | None = None) -> Iterator[ViewServer]:
    note = (notes if notes is not None else []).append
    with open_server(view, "127.0.0.1", 0, note) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def server(view: View) -> Iterator[ViewServer]:
    with serving(view) as running:
        yield running


def ask(
    server: ViewServer, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.server_port)) as connection:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


def test_every_tile_is_served_as_the_file_holds_it(server: ViewServer, painted: Path) -> None:
    """Rows are turned over (TMS), and nothing is encoded anew."""
    held = tiles_of(painted)
    assert {z for z, _, _ in held} == set(LEVELS)
    for (z, x, row), data in held.items():
        status, headers, body = ask(server, f"/map/{z}/{x}/{(1 << z) - 1 - row}.png")
        assert (status, body) == (200, data)
        assert headers["Content-Type"] == "image/png"
        assert headers.items() >= HEADERS.items()


def test_imagery_is_the_scene_on_the_same_tiles(
    server: ViewServer, view: View, small_scene: Path
) -> None:
    assert view.imagery is not None
    with Scene.open(small_scene) as scene:
        for key in view.imagery.keys(16).tolist():
            x, y = key & 0xFFFFFFFF, key >> 32
            status, headers, body = ask(server, f"/imagery/16/{x}/{y}.webp")
            assert (status, headers["Content-Type"]) == (200, "image/webp")
            expected = scene.read(16, x * 256, y * 256, 256, 256).astype(np.int16)
            found = pixels_of(body)
            assert (found[..., 3] == expected[..., 3]).all(), "no data is transparent"
            valid = expected[..., 3] > 0
            assert not valid.any() or np.abs(found - expected)[valid].mean() < 8


def test_head_answers_as_get_without_a_body(server: ViewServer) -> None:
    for path in ("/", "/config.js", "/leaflet/LICENSE", "/map/0/0/0.png"):
        got, asked = ask(server, path), ask(server, path, "HEAD")
        assert asked[0] == got[0] and asked[2] == b""
        assert asked[1]["Content-Length"] == got[1]["Content-Length"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_but_reading(server: ViewServer, method: str) -> None:
    status, headers, _ = ask(server, "/", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


EVIL = [
    "/../../../../etc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/leaflet/../index.html",
    "/leaflet/..%2findex.html",
    "/leaflet/",
    "/leaflet",
    "//etc/passwd",
    "/etc/passwd",
    "/..\\..\\painted.mbtiles",
    "/painted.mbtiles",
    "/map/../config.js",
    "/map/16/../../config.js",
    "/map/16/-1/0.png",
    "/map/16/1e3/0.png",
    "/map/16/99999/0.png",
    "/map/99/0/0.png",
    "/map/15/0/0.png",
    "/map/16/0/0.png",
    "/map/16/0/0.png/",
    "/map/16/0/0.webp",
    "/map/16/\u0661/0.png",
    "/files/16/0/0.png",
    "config.js",
    "http://127.0.0.1/etc/passwd",
    "/config.js\0.png",
]


@pytest.mark.parametrize("path", EVIL)
def test_there_is_no_way_out_of_the_result(server: ViewServer, path: str) -> None:
    """Past any client that would tidy the path: bytes on a socket."""
    host = f"127.0.0.1:{server.server_port}"
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        answer = raw.makefile("rb").readline()
    assert re.match(rb"HTTP/1.1 40[04] ", answer), answer


def test_other_machines_cannot_connect(server: ViewServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing, tells the address of this machine
        except OSError:
            return  # a machine without a network has no other address
        address = probe.getsockname()[0]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, server.server_port), timeout=10)


def test_a_foreign_name_for_our_address_is_turned_away(server: ViewServer) -> None:
    """Otherwise any web page could read the map through a name that it points at 127.0.0.1."""
    assert ask(server, "/config.js", Host="evil.example")[0] == 421
    assert ask(server, "/config.js", Host=f"localhost:{server.server_port}")[0] == 200


def test_a_taken_default_port_is_no_obstacle(view: View) -> None:
    with (
        open_server(view, "127.0.0.1", None, print) as one,
        open_server(view, "127.0.0.1", None, print) as two,
    ):
        assert one.server_port != two.server_port


def test_the_file_is_only_read(painted: Path, server: ViewServer) -> None:
    before = painted.read_bytes()
    ask(server, "/map/14/0/0.png")
    assert painted.read_bytes() == before
    assert [path.name for path in painted.parent.iterdir()] == [painted.name]


def test_a_partial_file_is_shown_unless_a_run_holds_it(small_scene: Path, tmp_path: Path) -> None:
    output, everything = tmp_path / "half.mbtiles", planned(small_scene)
    partial, windows = partial_path(output), list(everything.windows(16))
    with open_painting(small_scene, output) as archive:
        for window in windows[:3]:
            paint(archive, window, everything.tiles_of(window))
        with pytest.raises(MapError, match="is being written"):
            MbtilesSource.open(partial)
    names = sorted(path.name for path in tmp_path.iterdir())
    with closing(MbtilesSource.open(partial)) as source:
        assert source.about.brief[0] == ("State", "unfinished, 3 tiles so far")
        tile = everything.tiles_of(windows[0])[0]
        data = source.get_tile(tile)
        assert data is not None and (pixels_of(data) == painted_pixels(tile)).all()
        assert sorted(path.name for path in tmp_path.iterdir()) == names, "nothing left beside it"
        notes: list[str] = []
        with serving(View(source), notes) as server:
            with open_painting(small_scene, output) as archive:  # the run goes on: nobody is locked
                paint(archive, windows[3], everything.tiles_of(windows[3]))
                path = f"/map/16/{tile.x}/{tile.y}.png"
                assert [ask(server, path)[0] for _ in range(2)] == [503, 503]
            assert ask(server, path)[0] == 503, "what was opened is not what is there"
        assert len(notes) == 2 and "is being written" in notes[0] and "has changed" in notes[1]


def painted_pixels(tile: Tile) -> np.ndarray:
    picture = picture_of(tile)
    return np.where(picture[..., 3:] > 0, picture, 0)


def test_maps_of_others_are_shown_too(tmp_path: Path) -> None:
    """JPEG, tiles as a view, few metadata: what the specification allows and people have."""
    path = tmp_path / "theirs.mbtiles"
    Image.new("RGB", (256, 256), (10, 200, 30)).save(tmp_path / "tile.jpg")
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("CREATE TABLE metadata (name TEXT, value TEXT)")
        file.executemany(
            "INSERT INTO metadata VALUES (?, ?)", [("attribution", ATTRIBUTION), ("bounds", "x")]
        )
        file.execute("CREATE TABLE images (id INTEGER, data BLOB, z INTEGER, x INTEGER, y INTEGER)")
        data = (tmp_path / "tile.jpg").read_bytes()
        file.executemany("INSERT INTO images VALUES (1, ?, 3, ?, 7)", [(data, 2), (data, 3)])
        file.execute(
            "CREATE VIEW tiles AS SELECT z AS zoom_level, x AS tile_column, y AS tile_row, "
            "data AS tile_data FROM images"
        )
    with closing(MbtilesSource.open(path)) as source:
        assert (source.levels, source.suffix) == ((3,), "jpg")
        assert source.about.name == "theirs"
        assert source.about.attribution == "Painted by a test, nobody & co."
        assert source.about.caution == "", "nobody said that a model drew it"
        assert source.get_tile(Tile(2, 0, 3)) == data
        np.testing.assert_allclose(source.bounds, (-90, 79.17133, 0, 85.05113), atol=1e-5)


@given(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1))
def test_runs_name_all_tiles_and_no_other(tiles: set[tuple[int, int]]) -> None:
    keys = np.array(sorted(row << 32 | column for row, column in tiles), np.int64)
    runs = np.array(tile_runs(keys)).reshape(-1, 3)
    named = [(row, x) for row, first, last in runs for x in range(first, last + 1)]
    assert sorted(tiles) == named


def test_levels_are_spoken_with_their_gaps() -> None:
    assert spoken_levels((10, 11, 12, 14)) == "10-12, 14"


class Meddler(QuietReport):
    """Somebody who takes a tile out of the map while it is written to a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen = ""

    def advance(self, level: int, tiles: int) -> None:
        if not self.seen:
            (partial,) = self.path.parent.glob("*.partial")
            self.seen = partial.name
            with closing(sqlite3.connect(self.path)) as file, file:
                file.execute("DELETE FROM tiles WHERE zoom_level=16 AND rowid % 2")


def files_of(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_a_folder_holds_every_tile_and_is_the_same_every_time(
    view: View, painted: Path, tmp_path: Path
) -> None:
    count = export_folder(view, tmp_path / "one", False, QuietReport())
    export_folder(view, tmp_path / "two", False, QuietReport())
    one = files_of(tmp_path / "one")
    assert one == files_of(tmp_path / "two")
    held = {
        f"map/{z}/{x}/{(1 << z) - 1 - row}.png": data
        for (z, x, row), data in tiles_of(painted).items()
    }
    assert {name: data for name, data in one.items() if name.startswith("map/")} == held
    assert sum(name.startswith("imagery/") for name in one) + len(held) == count
    assert "leaflet/LICENSE" in one
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(
    painted: Path, small_scene: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.mbtiles"
    shutil.copy(painted, copy)
    folder = tmp_path / "folder"
    with closing(MbtilesSource.open(copy)) as source:
        export_folder(View(source), folder, False, QuietReport())
        (folder / "of an older map").touch()
        with pytest.raises(OutputError, match="--overwrite to replace"):
            export_folder(View(source), folder, False, QuietReport())
        before, meddler = files_of(folder), Meddler(copy)
        with pytest.raises(MapError, match="has changed"):
            export_folder(View(source), folder, True, meddler)
        assert meddler.seen == "folder.partial", "it was half-way"
        assert files_of(folder) == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.mbtiles", "folder"]
    with closing(MbtilesSource.open(copy)) as source:
        export_folder(View(source), folder, True, QuietReport())
    assert "of an older map" not in files_of(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.mbtiles", "folder"]


def pbf(folder: Path) -> str:
    with closing(sqlite3.connect(folder / "vector.mbtiles")) as file, file:
        file.execute("CREATE TABLE metadata (name TEXT, value TEXT)")
        file.execute("INSERT INTO metadata VALUES ('format', 'pbf')")
        file.execute(
            "CREATE TABLE tiles (zoom_level INTEGER, tile_column INTEGER, tile_row INTEGER, "
            "tile_data BLOB)"
        )
        file.execute("INSERT INTO tiles VALUES (0, 0, 0, ?)", (b"\x1f\x8b\x08",))
    return str(folder / "vector.mbtiles")


def truncated(folder: Path) -> str:
    path = folder / "short.mbtiles"
    data = (folder / "painted.mbtiles").read_bytes()
    path.write_bytes(data[: len(data) // 3])
    return str(path)


def made(folder: Path, name: str, maker: Maker) -> str:
    maker(folder)
    return str(folder / name)


def own(folder: Path, *flags: str) -> list[str]:
    return [str(folder / "painted.mbtiles"), *flags]


def taken(folder: Path) -> list[str]:
    """A port that somebody listens on until the interpreter ends."""
    somebody = socket.create_server(("127.0.0.1", 0))
    _LISTENING.append(somebody)
    return own(folder, "--port", str(somebody.getsockname()[1]))


_LISTENING: list[socket.socket] = []


def folder_of(folder: Path, name: str, file: str = "notes.txt") -> str:
    (folder / name).mkdir()
    (folder / name / file).write_text("mine")
    return str(folder / name)


CASES: dict[str, Case] = {
    "no result": (lambda f: [], 2, "Missing argument"),
    "overwrite alone": (lambda f: own(f, "--overwrite"), 2, "without --html"),
    "html and port": (lambda f: own(f, "--html", "x", "--port", "1"), 2, "leave --host and --port"),
    "credit alone": (lambda f: own(f, "--imagery-credit", "x"), 2, "without --imagery"),
    "imagery missing": (lambda f: own(f, "--imagery", str(f / "no.tif")), 3, "does not exist"),
    "imagery elsewhere": (
        lambda f: own(f, "--imagery", made(f, "far.tif", raster("far.tif", crs="EPSG:32601"))),
        3,
        "do not overlap",
    ),
    "html exists": (lambda f: own(f, "--html", folder_of(f, "x")), 8, "--overwrite to replace"),
    "html is somebody's": (
        lambda f: own(f, "--overwrite", "--html", folder_of(f, "x", "index.html")),
        8,
        "not made by c2gm-view",
    ),
    "html nowhere": (lambda f: own(f, "--html", str(f / "no" / "x")), 8, "is not a folder"),
    "result missing": (lambda f: [str(f / "no.mbtiles")], 15, "does not exist"),
    "result is a folder": (lambda f: [str(f)], 15, "is a folder"),
    "result is text": (
        lambda f: [made(f, "t.mbtiles", text("t.mbtiles"))],
        15,
        "not an MBTiles",
    ),
    "result is empty": (
        lambda f: [made(f, "e.mbtiles", text("e.mbtiles", ""))],
        15,
        "not an MBTiles",
    ),
    "result is vectors": (lambda f: [pbf(f)], 15, "of the format pbf"),
    "result truncated": (lambda f: [truncated(f)], 15, "damaged"),
    "port taken": (taken, 16, "is taken; give another --port"),
    "port beyond all": (lambda f: own(f, "--port", "70000"), 16, "expected 0 to 65535"),
    "host not ours": (lambda f: own(f, "--host", "192.0.2.1"), 16, "give another --host"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_gets_one_line_and_its_exit_code(
    name: str, painted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(painted, tmp_path)
    change, code, line = CASES[name]
    arguments = change(tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--quiet"])
    out, err = capsys.readouterr()
    assert err.startswith("c2gm-view: error: "), err
    assert (ended.value.code, out, err.count("\n")) == (code, "", 1)
    assert re.search(line, err), err
    assert files_of(tmp_path) == before


def test_the_table_of_exit_codes_is_complete() -> None:
    described = {int(code) for code in re.findall(r"^ +(\d+)  ", EPILOG, re.MULTILINE)}
    assert {code for _, code, _ in CASES.values()} < described


def test_ctrl_c_ends_it_well(painted: Path) -> None:
    program = [sys.executable, "-c", "from c2gm.runtime.view_cli import main; main()"]
    with subprocess.Popen(
        [*program, str(painted), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        said = process.stdout.readline()
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", said)[1])  # type: ignore[index]
        idle = socket.create_connection(("127.0.0.1", port), timeout=10)  # as browsers keep one
        with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
            connection.request("GET", "/")
            assert connection.getresponse().status == 200
        process.send_signal(signal.SIGINT)
        assert (process.wait(timeout=20), process.stderr.read()) == (0, "")
        idle.close()


def test_a_folder_as_users_write_it(
    painted: Path, small_scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "shown"
    with pytest.raises(SystemExit) as ended:
        main([str(painted), "--imagery", str(small_scene), "--html", str(folder)])
    out, err = capsys.readouterr()
    assert ended.value.code == 0, err
    assert re.search(r"writing \d+ tiles, about [\d.]+ MB", err)
    assert re.search(r"\d+ tiles; open .*index.html in a browser", out)
    assert (folder / "index.html").is_file()
