"use strict";
/* The card that tells what a place of the map is, and where the map comes from. */

class HereCard {
  constructor(map, index, view) {
    this.map = map;
    this.index = index;
    this.view = view;
    this.card = document.getElementById("here");
    this.marks = null;
    document.getElementById("here-close").addEventListener("click", () => this.hide());
  }

  show(latlng) {
    const zoom = this.map.getZoom();
    const z = this.index.shownAt(zoom);
    const end = 2 ** z;
    const corner = this.map.project(latlng, z).divideBy(256).floor();
    const [x, y] = [((corner.x % end) + end) % end, corner.y];
    const point = latlng.wrap();
    document.getElementById("here-title").textContent = `Tile ${z}/${x}/${y}`;
    fillList(document.getElementById("here-place"), [
      ["Level", zoom === z ? `${z}` : `${z}, shown enlarged`],
      ["x, y", `${x}, ${y}`],
      ["Longitude", `${point.lng.toFixed(5)}°`],
      ["Latitude", `${point.lat.toFixed(5)}°`],
      ["Map here", this.index.has(z, x, y) ? "" : "no tile"],
    ]);
    fillList(document.getElementById("here-origin"), [
      ...this.view.brief,
      ["Attribution", this.view.attribution],
    ]);
    document.getElementById("here-caution").textContent = this.view.caution;
    this.card.hidden = false;
    this.card.scrollTop = 0;
    this.keepFree(latlng);
    this.mark(latlng, corner, z);
  }

  hide() {
    this.card.hidden = true;
    this.marks?.remove();
    this.marks = null;
  }

  /* A ring at the place, and the outline of its tile. */
  mark(latlng, corner, z) {
    const at = (dx, dy) => this.map.unproject(corner.add([dx, dy]).multiplyBy(256), z);
    const style = { interactive: false, color: "#1d2733", weight: 2 };
    this.marks?.remove();
    this.marks = L.layerGroup([
      L.rectangle([at(0, 0), at(1, 1)], { ...style, fill: false, dashArray: "4 4" }),
      L.circleMarker(latlng, { ...style, radius: 6, fillColor: "#ffffff", fillOpacity: 1 }),
    ]).addTo(this.map);
  }

  /* Move the map where the card covers what it is about. */
  keepFree(latlng) {
    const { offsetLeft: left, offsetTop: top, offsetWidth: width, offsetHeight: height } = this.card;
    const beside = width < this.map.getSize().x / 2;
    const point = this.map.latLngToContainerPoint(latlng);
    if (point.x > left - 10 && point.y > top - 10 && point.y < top + height + 10) {
      const covered = beside ? [width + 30, 30] : [30, height + 30];
      this.map.panInside(latlng, { paddingBottomRight: covered, animate: false });
    }
  }
}

/* Labels and values into a <dl>, as text; what is empty is left out. */
function fillList(target, pairs) {
  const items = pairs.filter(([, value]) => value).flatMap(([label, value]) => {
    const [term, text] = [document.createElement("dt"), document.createElement("dd")];
    [term.textContent, text.textContent] = [label, value];
    return [term, text];
  });
  target.replaceChildren(...items);
}
