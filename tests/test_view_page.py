"""The viewer's page in a real browser, served and from a folder: what is seen and what it does."""

import base64
import io
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mercantile
import numpy as np
import pytest
from mercantile import Tile
from numpy.typing import NDArray
from painted import paint_map, picture_of, planned
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from c2gm.runtime.progress import QuietReport
from c2gm.runtime.scene import Scene
from c2gm.runtime.viewer.export import export_folder
from c2gm.runtime.viewer.imagery import ImageryTiles
from c2gm.runtime.viewer.mbtiles_source import MbtilesSource
from c2gm.runtime.viewer.page import View
from c2gm.runtime.viewer.server import open_server

PROGRAMS = shutil.which("chromium"), shutil.which("chromedriver")
if None in PROGRAMS and not os.environ.get("C2GM_REQUIRE_BROWSER"):
    pytest.skip("no chromium with its chromedriver on the path", allow_module_level=True)

FLAGS = """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run
--disable-background-networking --disable-component-update --disable-sync
--disable-dev-shm-usage --force-color-profile=srgb --hide-scrollbars""".split()

GROUND = (228, 231, 234)  # --ground in viewer.css


@dataclass
class Page:
    """A browser that shows the painted map, at `address`; pictures are (height, width, 3)."""

    driver: webdriver.Chrome
    address: str
    requests: list[str]

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def text(self, name: str) -> str:
        return self.driver.find_element(By.ID, name).text

    def keys(self, *keys: str) -> None:
        ActionChains(self.driver, 0).send_keys(*keys).perform()

    def open(self, width: int = 1280, height: int = 800) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        self.driver.get(self.address)
        self.settle()

    def go(self, zoom: int, longitude: float, latitude: float) -> None:
        """To a level, with a place at the centre."""
        view = "c2gmMap.setView([arguments[1], arguments[2]], arguments[0], {animate: false})"
        self.run(view, zoom, latitude, longitude)
        self.settle()

    def settle(self) -> None:
        """Until all tiles are there and drawn."""
        self.run("""
            const loading = () => {
              let waiting = false;
              c2gmMap.eachLayer((layer) => { waiting ||= layer.isLoading?.() ?? false; });
              return waiting;
            };
            return new Promise((done) => {
              const look = () => requestAnimationFrame(loading() ? look : () => setTimeout(done));
              look();
            });
        """)

    def pixels(self) -> NDArray[np.int16]:
        """What the map shows, without what lies over it."""
        over = ".leaflet-control-container, #swipe, #here"
        hide = f"for (const e of document.querySelectorAll('{over}')) e.style.visibility = "
        rectangle = "return document.getElementById('map').getBoundingClientRect().toJSON()"
        box = self.run(f"{hide} 'hidden'; {rectangle}")
        options = {"format": "png", "optimizeForSpeed": True}
        encoded = self.driver.execute_cdp_cmd("Page.captureScreenshot", options)["data"]
        self.run(hide + "''")
        shot = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
        corners = (box["left"], box["top"], box["right"], box["bottom"])
        return np.asarray(shot.crop(tuple(round(c) for c in corners))).astype(np.int16)

    def place(self, tile: Tile) -> tuple[int, int]:
        """Where a tile's corner is, in pixels of the map."""
        west, north = mercantile.ul(tile)[:2]
        point = "const p = c2gmMap.latLngToContainerPoint([arguments[1], arguments[0]]);"
        x, y = self.run(point + "return [p.x, p.y]", west, north)
        return round(x), round(y)

    def asked(self) -> list[str]:
        """All addresses that the browser went to so far."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
        return self.requests


def wait(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited for nothing"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    assert PROGRAMS[0] and PROGRAMS[1], "C2GM_REQUIRE_BROWSER is set, and there is no chromium"
    options = webdriver.ChromeOptions()
    options.binary_location = PROGRAMS[0]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options, Service(PROGRAMS[1]))
        still = [{"name": "prefers-reduced-motion", "value": "reduce"}]  # nothing to wait for
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": still})
        yield driver
        driver.quit()


@pytest.fixture(scope="module")
def view(small_scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[View]:
    path = paint_map(small_scene, tmp_path_factory.mktemp("painted") / "painted.mbtiles")
    with closing(MbtilesSource.open(path)) as source:
        with closing(ImageryTiles.open(small_scene, source, "somebody")) as imagery:
            yield View(source, imagery)


@contextmanager
def serving(view: View) -> Iterator[str]:
    """Its address, while it lasts."""
    with open_server(view, "127.0.0.1", 0, print) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def page(
    request: pytest.FixtureRequest,
    driver: webdriver.Chrome,
    view: View,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Page]:
    with ExitStack() as stack:
        if request.param == "served":
            address = stack.enter_context(serving(view))
        else:
            folder = tmp_path_factory.mktemp("folder") / "shown map & more"
            export_folder(view, folder, False, QuietReport())
            address = (folder / "index.html").as_uri()
        driver.get("about:blank")
        driver.get_log("performance"), driver.get_log("browser")
        page = Page(driver, address, [])
        page.open()
        yield page
        errors = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
        assert not errors
        base = address.removesuffix("index.html")
        assert not [url for url in page.asked() if not url.startswith((base, "data:"))]
        assert any("/map/16/" in url for url in page.asked())


SERVED = pytest.mark.parametrize("page", ["served"], indirect=True)
BOTH = pytest.mark.parametrize("page", ["served", "folder"], indirect=True)


@pytest.fixture
def centre(small_scene: Path) -> tuple[float, float]:
    with Scene.open(small_scene) as scene:
        west, south, east, north = scene.bounds
    return (west + east) / 2, (south + north) / 2


def seen(tile: Tile) -> NDArray[np.int16]:
    """A painted tile over the neutral ground."""
    picture = picture_of(tile)
    return np.where(picture[..., 3:] > 0, picture[..., :3], GROUND).astype(np.int16)


def share(page: Page, value: float) -> None:
    """Move the border, as the keyboard does."""
    page.run("document.getElementById('handle').focus()")
    page.keys(Keys.HOME, *[Keys.PAGE_UP] * round(value * 10))
    assert page.run("return document.getElementById('handle').ariaValueNow") == f"{value * 100:.0f}"


def inside(page: Page, tile: Tile, shot: NDArray[np.int16]) -> bool:
    x, y = page.place(tile)
    return 0 <= x <= shot.shape[1] - 256 and 0 <= y <= shot.shape[0] - 256


@BOTH
def test_every_tile_is_seen_as_it_was_made(
    page: Page, centre: tuple[float, float], small_scene: Path
) -> None:
    page.open()
    page.go(16, *centre)
    share(page, 0)
    shot = page.pixels()
    whole = [tile for tile in planned(small_scene).tiles(16) if inside(page, tile, shot)]
    assert len(whole) >= 4
    for tile in whole:
        x, y = page.place(tile)
        assert np.abs(shot[y : y + 256, x : x + 256] - seen(tile)).max() <= 1, tile


@SERVED
def test_the_border_parts_imagery_from_map(
    page: Page, view: View, centre: tuple[float, float], small_scene: Path
) -> None:
    assert view.imagery is not None
    page.open()
    page.go(16, *centre)
    share(page, 1)
    imagery = page.pixels()
    share(page, 0)
    drawn = page.pixels()
    tile = mercantile.tile(*centre, 16)
    x, y = page.place(tile)
    with Scene.open(small_scene) as scene:
        ground = scene.read(16, tile.x * 256, tile.y * 256, 256, 256)[..., :3].astype(np.int16)
    assert np.abs(imagery[y : y + 256, x : x + 256] - ground).mean() < 8
    middle = imagery.shape[1] // 2
    handle = page.driver.find_element(By.ID, "handle")
    share(page, 0.5)
    for pixels, key in ((0, ""), (-200, "drag"), (0, Keys.ARROW_RIGHT)):
        if key == "drag":
            ActionChains(page.driver, 20).drag_and_drop_by_offset(handle, pixels, 0).perform()
        elif key:
            handle.send_keys(key)
        now = int(page.run("return document.getElementById('handle').ariaValueNow"))
        border = imagery.shape[1] * now // 100
        shot = page.pixels()
        assert (shot[:, : border - 10] == imagery[:, : border - 10]).all()
        assert (shot[:, border + 10 :] == drawn[:, border + 10 :]).all()
    assert border < middle - 150, "it has moved"


@SERVED
def test_levels_are_chosen_by_slider_and_keyboard(page: Page, centre: tuple[float, float]) -> None:
    page.open()
    page.go(13, *centre)
    slider = page.driver.find_element(By.ID, "level")
    found = []
    for _ in range(5):
        found.append(page.text("level-text"))
        slider.send_keys(Keys.ARROW_RIGHT)
        page.settle()
    finer = ["17, enlarged from 16", "18, enlarged from 16"]
    assert found == ["13", "14", "16", *finer]
    page.run("document.activeElement.blur()")
    page.go(14, *centre)
    page.keys("+")
    wait(lambda: page.text("level-text") == "15, enlarged from 14")


@SERVED
@pytest.mark.parametrize(("zoom", "level"), [(15, 14), (18, 16)])
def test_levels_that_are_not_there_are_enlarged_from_the_next_coarser(
    page: Page, centre: tuple[float, float], zoom: int, level: int
) -> None:
    page.open()
    page.go(zoom, *centre)
    share(page, 0)
    shot = page.pixels()
    tile = mercantile.tile(*centre, level)
    x, y = page.place(tile)
    scale = 1 << zoom - level
    for row, column in np.ndindex(2, 2):
        px, py = x + (64 + 128 * column) * scale, y + (64 + 128 * row) * scale
        if 0 <= px < shot.shape[1] and 0 <= py < shot.shape[0]:
            expected = seen(tile)[64 + 128 * row, 64 + 128 * column]
            assert np.abs(shot[py, px] - expected).max() <= 2


@SERVED
def test_opacity_lets_the_imagery_shine_through(page: Page, centre: tuple[float, float]) -> None:
    page.open()
    page.go(16, *centre)
    share(page, 1)
    imagery = page.pixels()
    share(page, 0)
    drawn = page.pixels()
    slider = page.driver.find_element(By.ID, "opacity")
    slider.send_keys(*[Keys.ARROW_LEFT] * 10)
    assert page.text("opacity-text") == "50 %"
    half = page.pixels()
    tile = mercantile.tile(*centre, 16)
    x, y = page.place(tile)
    opaque = (slice(y + 8, y + 120), slice(x + 8, x + 120))
    assert np.abs(half[opaque] - (imagery[opaque] + drawn[opaque]) / 2).max() <= 2
    page.run("document.activeElement.blur()")
    page.keys("m")
    assert page.text("opacity-text") == "0 %"
    assert (page.pixels() == imagery).all()


@SERVED
def test_the_grid_names_tiles_and_says_which_are_missing(
    page: Page, centre: tuple[float, float], small_scene: Path
) -> None:
    page.open()
    page.go(16, *centre)
    page.keys("g")
    labels = page.run(
        "return [...document.querySelectorAll('.tile-grid .cell')]"
        ".map((cell) => [cell.textContent, cell.classList.contains('absent')])"
    )
    there = {f"16/{tile.x}/{tile.y}" for tile in planned(small_scene).tiles(16)}
    assert {text for text, absent in labels if not absent} <= there
    assert not {text for text, absent in labels if absent} & there
    tile = mercantile.tile(*centre, 16)
    assert [f"16/{tile.x}/{tile.y}", False] in labels
    assert any(absent for _, absent in labels)
    page.keys("g")
    assert not page.driver.find_elements(By.CSS_SELECTOR, ".tile-grid")


@SERVED
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_a_click_tells_place_and_provenance(
    page: Page, centre: tuple[float, float], width: int, height: int
) -> None:
    page.open(width, height)
    page.go(16, *centre)
    chart = page.driver.find_element(By.ID, "map")
    ActionChains(page.driver, 0).move_to_element_with_offset(chart, 70, 90).click().perform()
    told = page.text("here").split("\n")
    longitude, latitude = (
        float(told[told.index(name) + 1].rstrip("°")) for name in ("Longitude", "Latitude")
    )
    tile = mercantile.tile(longitude, latitude, 16)
    assert f"Tile 16/{tile.x}/{tile.y}" in told
    assert told[told.index("x, y") + 1] == f"{tile.x}, {tile.y}"
    for label, value in (
        ("Model", "brush"),
        ("Seed", "7"),
        ("Steps", "3"),
        ("Levels", "13-14, 16"),
    ):
        assert told[told.index(label) + 1] == value
    assert "AI-generated map: drawn by a model, not surveyed. Check before use." in told
    box = page.run("return document.getElementById('here').getBoundingClientRect().toJSON()")
    mark = page.run(
        "return [...document.querySelectorAll('.leaflet-overlay-pane path')].pop()"
        ".getBoundingClientRect().toJSON()"
    )
    assert box["left"] >= 0 and box["right"] <= width
    covered = mark["right"] > box["left"] and box["top"] < mark["bottom"] < box["bottom"]
    assert not covered, "the place that it tells of stays in view"
    page.keys(Keys.ESCAPE)
    assert not page.driver.find_element(By.ID, "here").is_displayed()


@BOTH
def test_texts_of_the_map_are_texts(page: Page) -> None:
    """Metadata come from a file that anybody may have made: none of it is markup."""
    page.open()
    assert page.text("name") == "painted & bold"
    assert page.text("attribution") == "Painted by a test, nobody & co."
    assert page.text("credit") == "Imagery: somebody"
    page.keys("i")
    assert "a; b" in page.text("about-list")
    page.keys(Keys.ESCAPE)
    page.keys("?")
    assert page.driver.find_element(By.ID, "help").is_displayed()
    page.keys(Keys.ESCAPE)
    assert not page.driver.find_element(By.ID, "help").is_displayed()


@SERVED
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844), (844, 390)])
def test_everything_fits_the_screen(page: Page, width: int, height: int) -> None:
    page.open(width, height)
    for name in ("grid", "about-open", "help-open", "fit", "level", "opacity", "caution", "credit"):
        box = page.run(
            "return document.getElementById(arguments[0]).getBoundingClientRect().toJSON()", name
        )
        assert box["width"] > 0 and box["left"] >= 0 and box["top"] >= 0, name
        assert box["right"] <= width and box["bottom"] <= height, name
    assert page.run("return document.documentElement.scrollWidth") == width
    assert page.run("return document.getElementById('map').clientHeight") > height * 0.4


@SERVED
def test_a_page_whose_tiles_cannot_be_read_says_so(
    page: Page, small_scene: Path, tmp_path: Path
) -> None:
    assert not [entry for entry in page.driver.get_log("browser") if entry["level"] == "SEVERE"]
    page.asked()
    path = paint_map(small_scene, tmp_path / "changing.mbtiles")
    with closing(MbtilesSource.open(path)) as source, serving(View(source)) as address:
        changing = Page(page.driver, address, [])
        changing.open()
        assert changing.text("notice") == ""
        os.utime(path, (0, 0))
        changing.run("c2gmMap.setZoom(13, {animate: false})")
        wait(lambda: "Has c2gm-view ended, or the file changed?" in changing.text("notice"))
        changing.driver.get("about:blank")
        changing.driver.get_log("browser"), changing.asked()


@SERVED
def test_without_imagery_the_page_says_how_to_give_it(
    page: Page, view: View, driver: webdriver.Chrome, tmp_path: Path
) -> None:
    page.asked()
    export_folder(View(view.result), tmp_path / "alone", False, QuietReport())
    page = Page(driver, (tmp_path / "alone" / "index.html").as_uri(), [])
    page.open()
    page.asked()
    assert "start c2gm-view with --imagery" in page.text("alone")
    assert not driver.find_element(By.ID, "swipe").is_displayed()
