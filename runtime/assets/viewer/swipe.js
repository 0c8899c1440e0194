"use strict";
/* The border between imagery and map: what is left of it is cut off the map, and the other way. */

class Swipe {
  /* left, right: names of panes; only `right` is cut while `seeThrough` is set. */
  constructor(map, left, right) {
    this.map = map;
    this.left = map.getPane(left);
    this.right = map.getPane(right);
    this.seeThrough = false;
    this.share = 0.5;
    this.box = document.getElementById("swipe");
    this.handle = document.getElementById("handle");
    this.box.hidden = false;
    map.on("move zoom viewreset resize", () => this.draw());
    this.handle.addEventListener("pointerdown", (event) => this.grab(event));
    this.handle.addEventListener("keydown", (event) => this.key(event));
    this.draw();
  }

  move(share) {
    this.share = Math.min(1, Math.max(0, share));
    this.draw();
  }

  draw() {
    const size = this.map.getSize();
    const x = size.x * this.share;
    const [from, to] = [[0, 0], [size.x, size.y]].map((p) => this.map.containerPointToLayerPoint(p));
    const middle = from.x + x;
    this.right.style.clipPath = box(middle, from.y, to.x, to.y);
    this.left.style.clipPath = this.seeThrough ? "" : box(from.x, from.y, middle, to.y);
    this.box.style.setProperty("--x", `${x}px`);
    const percent = Math.round(this.share * 100);
    this.handle.setAttribute("aria-valuenow", percent);
    this.handle.setAttribute("aria-valuetext", `${percent} % imagery, ${100 - percent} % map`);
  }

  grab(event) {
    event.preventDefault();
    this.handle.focus({ focusVisible: false });
    this.handle.setPointerCapture(event.pointerId);
    const left = this.map.getContainer().getBoundingClientRect().left;
    const grip = event.clientX - left - this.map.getSize().x * this.share;
    const follow = (e) => this.move((e.clientX - left - grip) / this.map.getSize().x);
    this.handle.addEventListener("pointermove", follow);
    const stop = () => this.handle.removeEventListener("pointermove", follow);
    this.handle.addEventListener("lostpointercapture", stop, { once: true });
  }

  key(event) {
    const step = event.shiftKey ? 0.1 : 0.02;
    const to = {
      ArrowLeft: this.share - step,
      ArrowDown: this.share - step,
      ArrowRight: this.share + step,
      ArrowUp: this.share + step,
      PageDown: this.share - 0.1,
      PageUp: this.share + 0.1,
      Home: 0,
      End: 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.move(to);
  }
}

function box(left, top, right, bottom) {
  const corners = [[left, top], [right, top], [right, bottom], [left, bottom]];
  return `polygon(${corners.map(([x, y]) => `${x}px ${y}px`).join(",")})`;
}
