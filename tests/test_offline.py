"""Nothing that c2gm is handed makes it go online: a server counts who comes."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_files import HERE, ring, vrt

from c2gm.runtime.area import read_area
from c2gm.runtime.errors import AreaError, SceneError
from c2gm.runtime.scene import Scene

WMS = (
    '<GDAL_WMS><Service name="TMS"><ServerUrl>{url}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service>'
    "<DataWindow><UpperLeftX>-20037508.34</UpperLeftX><UpperLeftY>20037508.34</UpperLeftY>"
    "<LowerRightX>20037508.34</LowerRightX><LowerRightY>-20037508.34</LowerRightY>"
    "<TileLevel>2</TileLevel><TileCountX>1</TileCountX><TileCountY>1</TileCountY></DataWindow>"
    "<Projection>EPSG:3857</Projection><BandsCount>3</BandsCount></GDAL_WMS>"
)


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """Address of a server, and what it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}", asked
        made.shutdown()


@pytest.mark.parametrize("kind", ["curl", "address", "nested", "wms"])
def test_a_raster_that_refers_to_an_address_is_refused_unasked(
    kind: str, server: tuple[str, list[str]], tmp_path: Path
) -> None:
    url, asked = server
    if kind == "wms":
        (tmp_path / "a.vrt").write_text(WMS.format(url=url))
    else:
        source = f"/vsicurl/{url}/b.tif" if kind != "address" else f"{url}/b.tif"
        vrt("b.vrt" if kind == "nested" else "a.vrt", source)(tmp_path)
    if kind == "nested":
        vrt("a.vrt", "b.vrt")(tmp_path)
    with pytest.raises(SceneError) as refused:
        Scene.open(tmp_path / "a.vrt")
    assert "\n" not in str(refused.value)
    assert asked == []


def test_an_area_whose_crs_is_an_address_is_refused_unasked(
    server: tuple[str, list[str]], tmp_path: Path
) -> None:
    url, asked = server
    path = tmp_path / "a.geojson"
    crs = {"type": "name", "properties": {"name": f"{url}/crs"}}
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring(*HERE)], "crs": crs}))
    with pytest.raises(AreaError, match="expected a code"):
        read_area(path)
    assert asked == []
