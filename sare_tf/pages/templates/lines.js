"use strict";
// Lines between two pictures, over both of them.
class MatchLines {
  constructor(svg, left, right) {
    this.svg = svg;
    this.pictures = [left, right];
    this.lines = [];
    this.isShown = true;
    for (const picture of this.pictures) {
      picture.addEventListener("load", () => this.draw());
      new ResizeObserver(() => this.draw()).observe(picture);
    }
  }

  // Each line: x and y in one and in the other, as shares of its sides.
  show(lines) {
    this.lines = lines;
    this.draw();
  }

  draw() {
    this.svg.replaceChildren();
    const isReady = this.pictures.every(
      (picture) => picture.complete && picture.naturalWidth
    );
    if (!this.isShown || !isReady) return;
    const [left, right] = this.pictures.map((one) => this.frameOf(one));
    for (const [x, y, otherX, otherY] of this.lines) {
      const ends = [
        [left.x + x * left.width, left.y + y * left.height],
        [right.x + otherX * right.width, right.y + otherY * right.height]
      ].map((end) => end.map((value) => value.toFixed(1)));
      this.add("path", { d: `M${ends[0].join(" ")}L${ends[1].join(" ")}` });
      for (const [cx, cy] of ends) this.add("circle", { cx, cy, r: 2.5 });
    }
  }

  // Where a picture is, without what its element leaves free around it.
  frameOf(picture) {
    const outer = this.svg.getBoundingClientRect();
    const inner = picture.getBoundingClientRect();
    const scale = Math.min(
      inner.width / picture.naturalWidth, inner.height / picture.naturalHeight
    );
    const width = picture.naturalWidth * scale;
    const height = picture.naturalHeight * scale;
    return {
      x: inner.x - outer.x + (inner.width - width) / 2,
      y: inner.y - outer.y + (inner.height - height) / 2,
      width, height
    };
  }

  add(tag, values) {
    const shape = document.createElementNS(this.svg.namespaceURI, tag);
    for (const [key, value] of Object.entries(values)) {
      shape.setAttribute(key, value);
    }
    this.svg.append(shape);
  }
}
