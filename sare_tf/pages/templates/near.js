"use strict";
// The point near which a photograph was taken: in the form, and on a map.
class NearPoint {
  constructor(form) {
    this.form = form;
    this.map = null;
    for (const field of [form.near, form.within_m]) {
      field.addEventListener("input", () => this.draw());
    }
  }

  // Only maps of the world know latitudes.
  attach(map) {
    this.map = map.svg.dataset.world ? map : null;
    if (!this.map) return;
    map.svg.classList.add("pickable");
    map.clicked = (place) => {
      this.form.near.value = this.degreesOf(place);
      this.form.closest("details").open = true;
      this.draw();
    };
    this.draw();
  }

  // The left upper corner as shares of the world, and shares of a unit.
  world() {
    return this.map.svg.dataset.world.split(" ").map(Number);
  }

  degreesOf({ x, y }) {
    const [west, north, perUnit] = this.world();
    const turn = Math.PI * (1 - 2 * (north + y * perUnit));
    const latitude = Math.atan(Math.sinh(turn)) * 180 / Math.PI;
    const longitude = (west + x * perUnit) * 360 - 180;
    return latitude.toFixed(6) + ", " + longitude.toFixed(6);
  }

  // A circle around the point.
  draw() {
    if (!this.map) return;
    for (const old of this.map.view.querySelectorAll(".near, .near-point")) {
      old.remove();
    }
    const given = this.form.near.value.split(",");
    const [latitude, longitude] = given.map(Number);
    const isPoint = given.length === 2 && given.every((part) => part.trim()) &&
      Math.abs(latitude) < 85 && Math.abs(longitude) <= 180;
    if (!isPoint) return;
    const EQUATOR_M = 2 * Math.PI * 6378137;
    const [west, north, perUnit] = this.world();
    const angle = latitude * Math.PI / 180;
    const x = ((longitude + 180) / 360 - west) / perUnit;
    const y = (
      (1 - Math.asinh(Math.tan(angle)) / Math.PI) / 2 - north
    ) / perUnit;
    const radius = Number(this.form.within_m.value) /
      (EQUATOR_M * Math.cos(angle) * perUnit);
    if (radius > 0 && Number.isFinite(radius)) {
      this.add("circle", "near", { cx: x, cy: y, r: radius });
    }
    this.add("path", "near-point", { d: `M${x} ${y}h0` });
  }

  add(tag, name, values) {
    const shape = document.createElementNS(this.map.svg.namespaceURI, tag);
    shape.setAttribute("class", name);
    for (const [key, value] of Object.entries(values)) {
      shape.setAttribute(key, value);
    }
    this.map.view.append(shape);
  }
}
