"use strict";
/* Layers of tiles that know which tiles exist, and a grid with their addresses. */

/* Tiles of a layer, from the runs in config.js: row, first column, last column; row ... */
class TileIndex {
  constructor(layer) {
    this.levels = layer.levels;
    this.rows = new Map();
    for (const level of layer.levels) {
      const rows = new Map();
      const runs = layer.tiles[level];
      for (let i = 0; i < runs.length; i += 3) {
        if (!rows.has(runs[i])) rows.set(runs[i], []);
        rows.get(runs[i]).push([runs[i + 1], runs[i + 2]]);
      }
      this.rows.set(level, rows);
    }
  }

  has(level, x, y) {
    const runs = this.rows.get(level)?.get(y) ?? [];
    return runs.some(([first, last]) => first <= x && x <= last);
  }

  /* The level whose tiles are shown at a zoom: itself, or the next coarser one, enlarged. */
  shownAt(zoom) {
    return this.levels.findLast((level) => level <= zoom) ?? this.levels[0];
  }
}

const IndexedLayer = L.TileLayer.extend({
  initialize(url, index, options) {
    L.TileLayer.prototype.initialize.call(this, url, options);
    this.index = index;
  },

  createTile(coords, done) {
    if (this.index.has(coords.z, coords.x, coords.y)) {
      return L.TileLayer.prototype.createTile.call(this, coords, done);
    }
    // Nothing is asked for that is not there, and the ground shows through.
    setTimeout(() => done(null, null));
    return document.createElement("div");
  },

  /* Leaflet 1.9.4 enlarges beyond maxNativeZoom only; levels may be missing in between, too. */
  _clampZoom(zoom) {
    return this.index.shownAt(zoom);
  },
});

/* Borders and addresses of the tiles in view, drawn anew after every move. */
const TileGrid = L.Layer.extend({
  initialize(index, options) {
    L.setOptions(this, options);
    this.index = index;
  },

  onAdd(map) {
    this.box = L.DomUtil.create("div", "tile-grid leaflet-zoom-hide", this.getPane());
    this.draw();
    return this;
  },

  onRemove() {
    this.box.remove();
  },

  getEvents() {
    return { moveend: this.draw, viewreset: this.draw };
  },

  draw() {
    const map = this._map;
    const level = this.index.shownAt(map.getZoom());
    const scale = map.getZoomScale(map.getZoom(), level);
    const side = 256 * scale;
    const pixels = map.getPixelBounds();
    const origin = map.getPixelOrigin();
    const end = 2 ** level;
    const cells = [];
    for (let y = Math.floor(pixels.min.y / side); y * side < pixels.max.y; y++) {
      for (let x = Math.floor(pixels.min.x / side); x * side < pixels.max.x; x++) {
        if (y < 0 || y >= end) continue;
        const column = ((x % end) + end) % end;
        const there = this.index.has(level, column, y);
        const cell = L.DomUtil.create("div", there ? "cell" : "cell absent");
        const label = L.DomUtil.create("span", "", cell);
        label.textContent = `${level}/${column}/${y}`;
        cell.style.width = cell.style.height = `${side}px`;
        L.DomUtil.setPosition(cell, L.point(x * side, y * side).subtract(origin));
        cells.push(cell);
      }
    }
    this.box.replaceChildren(...cells);
  },
});
