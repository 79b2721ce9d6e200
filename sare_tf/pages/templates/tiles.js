"use strict";
// Tiles of a Web Mercator map, below the points of a movable map.
class MapTiles {
  constructor(map, address) {
    this.map = map;
    this.address = address;
    this.shown = new Map();
    this.group = document.createElementNS(map.svg.namespaceURI, "g");
    this.group.setAttribute("class", "tiles");
    map.view.prepend(this.group);
    map.svg.classList.add("with-tiles");
    map.changed = () => {
      clearTimeout(this.later);
      // Ours: what is passed by quickly is not asked for.
      this.later = setTimeout(() => this.draw(), 120);
    };
    this.draw();
  }

  // Only what is in view, at the level that fits its pixels.
  draw() {
    // Ours: the deepest level that servers have, and tiles at a time.
    const PIXELS = 256, DEEPEST = 19, MOST = 80;
    const { svg, shown: { x: left, y: top, width, height } } = this.map;
    const [west, north, perUnit] = svg.dataset.world.split(" ").map(Number);
    const pixels = svg.getBoundingClientRect().width;
    const level = Math.min(DEEPEST, Math.max(0, Math.round(
      Math.log2(pixels / PIXELS / (width * perUnit))
    )));
    const count = 2 ** level;
    const limit = (value) => (
      Math.min(count - 1, Math.max(0, Math.floor(value * count)))
    );
    const column = (x) => limit(west + x * perUnit);
    const row = (y) => limit(north + y * perUnit);
    const wanted = new Set();
    for (let x = column(left); x <= column(left + width); x++) {
      for (let y = row(top); y <= row(top + height); y++) {
        if (wanted.size < MOST) wanted.add(`${level}/${x}/${y}`);
      }
    }
    for (const [name, image] of this.shown) {
      if (wanted.has(name)) continue;
      image.remove();
      this.shown.delete(name);
    }
    for (const name of wanted) {
      if (this.shown.has(name)) continue;
      const [z, x, y] = name.split("/");
      const image = document.createElementNS(svg.namespaceURI, "image");
      // Slightly larger, so that no line shows between two tiles.
      const size = 1.003 / (count * perUnit);
      for (const [key, value] of Object.entries({
        x: (x / count - west) / perUnit,
        y: (y / count - north) / perUnit,
        width: size,
        height: size,
        href: this.address
          .replace("{z}", z).replace("{x}", x).replace("{y}", y)
      })) image.setAttribute(key, value);
      image.addEventListener("error", () => image.remove());
      this.group.append(image);
      this.shown.set(name, image);
    }
  }

  remove() {
    clearTimeout(this.later);
    this.map.changed = () => {};
    this.map.svg.classList.remove("with-tiles");
    this.group.remove();
  }
}
