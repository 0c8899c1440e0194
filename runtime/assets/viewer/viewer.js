"use strict";
/* Puts map, controls and keyboard together; what there is to see stands in config.js. */

(() => {
  const view = window.c2gmView;
  const byId = (id) => document.getElementById(id);

  const indexes = {};
  for (const [name, layer] of Object.entries(view.layers)) indexes[name] = new TileIndex(layer);
  const levels = indexes.map.levels;
  const finest = levels[levels.length - 1];
  const stops = [...levels];
  for (let beyond = 1; beyond <= view.overzoom; beyond++) stops.push(finest + beyond);

  const [west, south, east, north] = view.bounds;
  // West of the antimeridian to east of it is one turn on.
  const bounds = L.latLngBounds([south, west], [north, east < west ? east + 360 : east]);

  const moves = !window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  const map = L.map("map", {
    zoomSnap: 1, // fractional zoom draws gaps between tiles, which look like seams
    minZoom: levels[0],
    maxZoom: stops[stops.length - 1],
    maxBounds: bounds.pad(1.5),
    attributionControl: false, // it stands under the map, for all to see
    zoomControl: false,
    fadeAnimation: moves,
    zoomAnimation: moves,
    inertia: moves,
  });
  L.control.zoom({ position: "topleft" }).addTo(map);
  addFitButton();
  L.control.scale({ imperial: false, maxWidth: 140 }).addTo(map);

  let failed = 0;
  for (const [name, z] of [["imagery", 210], ["map", 220], ["grid", 230]]) {
    map.createPane(name).style.zIndex = z;
    if (!indexes[name]) continue;
    const layer = new IndexedLayer(view.layers[name].url, indexes[name], {
      pane: name,
      minZoom: map.getMinZoom(),
      maxZoom: map.getMaxZoom(),
    });
    layer.on("tileerror", () => {
      failed += 1;
      notice(`${failed} tiles could not be read. Has c2gm-view ended, or the file changed?`);
    });
    layer.addTo(map);
  }
  map.getPane("grid").style.pointerEvents = "none";
  const grid = new TileGrid(indexes.map, { pane: "grid" });
  fit();
  const swipe = indexes.imagery ? new Swipe(map, "imagery", "map") : null;

  /* --- texts --- */

  document.title = `${view.name} - map`;
  byId("name").textContent = view.name;
  byId("caution").textContent = view.caution;
  byId("attribution").textContent = view.attribution;
  byId("about-description").textContent = view.description;
  byId("program").textContent = view.program;
  byId("credit").textContent = view.imageryCredit && `Imagery: ${view.imageryCredit}`;
  byId("alone").hidden = swipe !== null;
  fillList(byId("about-list"), [
    ...view.brief,
    ...view.more,
    ["Attribution", view.attribution],
    ["Imagery shown", view.imageryName ?? "none"],
    ["Imagery credit", view.imageryCredit],
  ]);

  function notice(text) {
    byId("notice").textContent = text;
    byId("notice").hidden = false;
  }

  /* --- level and opacity --- */

  const level = byId("level");
  level.max = stops.length - 1;
  byId("level-ticks").replaceChildren(...stops.map((stop, place) => new Option(stop, place)));

  function tellLevel() {
    const zoom = map.getZoom();
    const shown = indexes.map.shownAt(zoom);
    level.value = stops.indexOf(stops.includes(zoom) ? zoom : shown);
    const text = zoom === shown ? `${zoom}` : `${zoom}, enlarged from ${shown}`;
    byId("level-text").textContent = text;
    level.setAttribute("aria-valuetext", `level ${text}`);
  }
  level.addEventListener("input", () => map.setZoom(stops[level.value], { animate: false }));
  map.on("zoomend", tellLevel);
  tellLevel();

  const opacity = byId("opacity");
  let opaque = 100; // what `m` goes back to

  function setOpacity(percent) {
    opacity.value = percent;
    map.getPane("map").style.opacity = percent / 100;
    byId("opacity-text").textContent = `${percent} %`;
    if (swipe) {
      swipe.seeThrough = percent < 100; // the imagery shines through only where it is asked to
      swipe.draw();
    }
  }
  opacity.addEventListener("input", () => {
    setOpacity(Number(opacity.value));
    opaque = Number(opacity.value) || 100;
  });
  setOpacity(100);

  function toggleGrid() {
    const shown = map.hasLayer(grid);
    if (shown) grid.remove();
    else grid.addTo(map);
    byId("grid").setAttribute("aria-pressed", String(!shown));
  }

  function fit() {
    // What misses a level by a hair's breadth is still shown at it.
    map.fitBounds(bounds, { animate: false, padding: map.getSize().multiplyBy(-0.03) });
  }

  function addFitButton() {
    const button = L.DomUtil.create("button", "leaflet-bar leaflet-control square");
    button.type = "button";
    button.id = "fit";
    button.title = "Whole map (f)";
    button.setAttribute("aria-label", "Whole map");
    const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const path = document.createElementNS(icon.namespaceURI, "path");
    icon.setAttribute("viewBox", "0 0 24 24");
    icon.setAttribute("aria-hidden", "true");
    path.setAttribute("d", "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5");
    icon.append(path);
    button.append(icon);
    L.DomEvent.disableClickPropagation(button);
    button.addEventListener("click", fit);
    const control = L.control({ position: "topleft" });
    control.onAdd = () => button;
    control.addTo(map);
  }

  const here = new HereCard(map, indexes.map, view);
  map.on("click", (event) => here.show(event.latlng));

  /* --- buttons and keyboard --- */

  const open = (id) => {
    if (!document.querySelector("dialog[open]")) byId(id).showModal();
  };
  byId("grid").addEventListener("click", toggleGrid);
  byId("about-open").addEventListener("click", () => open("about"));
  byId("help-open").addEventListener("click", () => open("help"));
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close(); // beside it
    });
  }

  const pan = (x, y) => () => map.panBy([x, y], { animate: false });
  const onMap = { // what Leaflet does itself while the map has the focus
    ArrowLeft: pan(-80, 0),
    ArrowRight: pan(80, 0),
    ArrowUp: pan(0, -80),
    ArrowDown: pan(0, 80),
    "+": () => map.zoomIn(),
    "=": () => map.zoomIn(),
    "-": () => map.zoomOut(),
  };
  const everywhere = {
    "[": () => swipe?.move(swipe.share - 0.05),
    "]": () => swipe?.move(swipe.share + 0.05),
    m: () => setOpacity(Number(opacity.value) ? 0 : opaque),
    g: toggleGrid,
    c: () => here.show(map.getCenter()),
    f: fit,
    i: () => open("about"),
    "?": () => open("help"),
    Escape: () => here.hide(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (document.querySelector("dialog[open]")) return;
    const focus = document.activeElement;
    const slides = focus instanceof HTMLInputElement && event.key.startsWith("Arrow");
    const moves = !slides && !map.getContainer().contains(focus) ? onMap[event.key] : undefined;
    const action = everywhere[event.key] ?? moves;
    if (!action) return;
    event.preventDefault();
    action();
  });

  // Also while the address bar of a phone comes and goes.
  new ResizeObserver(() => map.invalidateSize({ animate: false })).observe(map.getContainer());
  window.c2gmMap = map;
})();
