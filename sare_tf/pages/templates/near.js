"use strict";
// Where a photograph was taken, as far as it is known: near a point, and inside
// a region; in the form, and on a map.
class KnownPosition {
  constructor(form) {
    this.form = form;
    this.map = null;
    for (const field of [form.near, form.within_m, form.region]) {
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

  onMap(latitude, longitude) {
    const [west, north, perUnit] = this.world();
    const turn = Math.asinh(Math.tan(latitude * Math.PI / 180)) / Math.PI;
    return [
      ((longitude + 180) / 360 - west) / perUnit,
      ((1 - turn) / 2 - north) / perUnit
    ];
  }

  draw() {
    if (!this.map) return;
    for (const old of this.map.view.querySelectorAll(".known-position")) {
      old.remove();
    }
    this.drawRegion();
    this.drawNear();
  }

  // A circle around the point.
  drawNear() {
    const given = this.form.near.value.split(",");
    const [latitude, longitude] = given.map(Number);
    const isPoint = given.length === 2 && given.every((part) => part.trim()) &&
      Math.abs(latitude) < 85 && Math.abs(longitude) <= 180;
    if (!isPoint) return;
    const EQUATOR_M = 2 * Math.PI * 6378137;
    const [, , perUnit] = this.world();
    const [x, y] = this.onMap(latitude, longitude);
    const radius = Number(this.form.within_m.value) /
      (EQUATOR_M * Math.cos(latitude * Math.PI / 180) * perUnit);
    if (radius > 0 && Number.isFinite(radius)) {
      this.add("circle", "near", { cx: x, cy: y, r: radius });
    }
    this.add("path", "near-point", { d: `M${x} ${y}h0` });
  }

  // Borders and holes. Nothing while the text is no region: the answer to a
  // request says what is wrong with it.
  drawRegion() {
    let lines;
    try {
      const polygons = KnownPosition.polygonsOf(
        JSON.parse(this.form.region.value)
      );
      lines = polygons.flat().map((ring) => "M" + this.corners(ring).join("L"));
    } catch {
      return;
    }
    const d = lines.map((line) => line + "Z").join("");
    if (d && !/NaN|Infinity/.test(d)) this.add("path", "inside", { d });
  }

  // Lines are straight in degrees, and so not on the map: at least a position
  // for every degree.
  corners(ring) {
    const corners = [];
    ring.forEach(([longitude, latitude], index) => {
      const [fromLongitude, fromLatitude] = ring[Math.max(index - 1, 0)];
      const east = longitude - fromLongitude, up = latitude - fromLatitude;
      const steps = Math.max(
        1, Math.ceil(Math.min(Math.max(Math.abs(east), Math.abs(up)), 360))
      );
      for (let step = 1; step <= steps; step++) {
        const share = step / steps;
        const clamped = Math.min(85, Math.max(-85, fromLatitude + share * up));
        corners.push(
          this.onMap(clamped, fromLongitude + share * east).join(" ")
        );
      }
    });
    return corners;
  }

  static polygonsOf(region) {
    switch (region.type) {
      case "Polygon": return [region.coordinates];
      case "MultiPolygon": return region.coordinates;
      case "Feature": return KnownPosition.polygonsOf(region.geometry);
      case "FeatureCollection":
        return region.features.flatMap(KnownPosition.polygonsOf);
      case "GeometryCollection":
        return region.geometries.flatMap(KnownPosition.polygonsOf);
      default: return [];
    }
  }

  add(tag, name, values) {
    const shape = document.createElementNS(this.map.svg.namespaceURI, tag);
    shape.setAttribute("class", "known-position " + name);
    for (const [key, value] of Object.entries(values)) {
      shape.setAttribute(key, value);
    }
    this.map.view.append(shape);
  }
}
