"use strict";
// Moves and zooms the maps of sare_tf.pages.drawing. A map without this script
// shows its first view.
const pointMaps = (() => {
  // Ours: how much closer than the first view, and how points grow by that.
  const CLOSEST = 40, GROWTH = 0.2;
  // Ours: pixels of a map below which its marks and points are drawn larger.
  const NARROW = 480;
  // Ours: pixels that a pointer moves in a click.
  const STILL = 4;

  function box(text) {
    const [x, y, width, height] = text.split(" ").map(Number);
    return { x, y, width, height };
  }

  // The box that holds another one, with the shape of the first view.
  function around(inner, first) {
    const width = Math.max(
      inner.width, inner.height * first.width / first.height, first.width
    );
    const height = width * first.height / first.width;
    return {
      x: inner.x + (inner.width - width) / 2,
      y: inner.y + (inner.height - height) / 2,
      width, height
    };
  }

  function scaleOf(unitM, units) {
    const power = 10 ** Math.floor(Math.log10(unitM * units / 3));
    const step = Math.max(
      ...[1, 2, 5].filter((n) => n * power <= unitM * units / 3)
    );
    const metres = step * power;
    const text = metres < 1000
      ? Number(metres.toPrecision(1)) + " m"
      : Number((metres / 1000).toPrecision(1)) + " km";
    return { length: metres / unitM, text };
  }

  class MovableMap {
    constructor(frame, svg) {
      this.svg = svg;
      this.view = svg.querySelector(".view");
      this.first = box(this.view.getAttribute("viewBox"));
      this.whole = around(box(svg.dataset.whole), this.first);
      this.unitM = Number(svg.dataset.unitM);
      this.outer = box(svg.getAttribute("viewBox"));
      this.paths = [...this.view.querySelectorAll("path")].map((path) => ({
        path, width: Number(path.getAttribute("stroke-width"))
      }));
      this.marks = [...this.view.querySelectorAll(".mark")].map((mark) => ({
        mark, place: mark.getAttribute("transform")
      }));
      // Called after each change of what is shown.
      this.changed = () => {};
      // Called with the place that was clicked, in units.
      this.clicked = () => {};
      this.pointers = new Map();
      this.listen(frame);
      this.addButtons(frame);
      this.show(this.first);
      new ResizeObserver(() => this.show(this.shown)).observe(svg);
    }

    // Shows a box of the map; its height follows from its width.
    show(wanted) {
      const { first, whole } = this;
      const width = Math.min(
        whole.width, Math.max(first.width / CLOSEST, wanted.width)
      );
      const height = width * first.height / first.width;
      const within = (middle, low, size, own) => Math.min(
        Math.max(middle, low + Math.min(own, size) / 2),
        low + size - Math.min(own, size) / 2
      );
      const x = within(
        wanted.x + wanted.width / 2, whole.x, whole.width, width
      ) - width / 2;
      const y = within(
        wanted.y + wanted.height / 2, whole.y, whole.height, height
      ) - height / 2;
      this.shown = { x, y, width, height };
      this.view.setAttribute("viewBox", `${x} ${y} ${width} ${height}`);
      const share = width / first.width;
      const pixels = this.svg.getBoundingClientRect().width || NARROW;
      const larger = Math.max(1, NARROW / pixels);
      for (const { path, width: drawn } of this.paths) {
        path.setAttribute(
          "stroke-width", drawn * larger * share ** (1 - GROWTH)
        );
      }
      for (const { mark, place } of this.marks) {
        mark.setAttribute("transform", `${place} scale(${share * larger})`);
      }
      const { length, text } = scaleOf(this.unitM * share, first.width);
      const [bar, label] = this.svg.querySelector(".scale").children;
      const top = bar.getAttribute("d").match(/^M0 (\S+?)v/)[1];
      bar.setAttribute("d", `M0 ${top}v12H${length.toFixed(1)}v-12`);
      label.setAttribute("x", length + 14);
      label.textContent = text;
      this.changed();
    }

    // Zooms about a point, in units; without one, about the middle.
    zoom(times, at) {
      const { x, y, width, height } = this.shown;
      const middle = at || { x: x + width / 2, y: y + height / 2 };
      const limited = Math.min(
        this.whole.width, Math.max(this.first.width / CLOSEST, width / times)
      ) / width;
      this.show({
        x: middle.x - (middle.x - x) * limited,
        y: middle.y - (middle.y - y) * limited,
        width: width * limited, height: height * limited
      });
    }

    move(right, down) {
      const { x, y, width, height } = this.shown;
      this.show({ x: x + right, y: y + down, width, height });
    }

    unitsPerPixel() {
      return this.outer.width / this.svg.getBoundingClientRect().width *
        this.shown.width / this.first.width;
    }

    // From pixels of the window to units of the map.
    placeOf(event) {
      const edge = this.svg.getBoundingClientRect();
      const perPixel = this.unitsPerPixel();
      return {
        x: this.shown.x + (event.clientX - edge.left) * perPixel,
        y: this.shown.y + (event.clientY - edge.top) * perPixel
      };
    }

    addButtons(frame) {
      const buttons = document.createElement("div");
      buttons.className = "map-buttons";
      for (const [text, name, act] of [
        ["+", "Zoom in", () => this.zoom(2)],
        ["\u2212", "Zoom out", () => this.zoom(0.5)],
        ["\u2922", "Show the whole map", () => this.show(this.whole)],
        ["\u21ba", "Back to the first view", () => this.show(this.first)]
      ]) {
        // A map that is all in its first view has no other whole.
        if (text === "\u2922" && this.whole.width <= this.first.width) continue;
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = text;
        button.title = name;
        button.setAttribute("aria-label", name);
        button.addEventListener("click", act);
        buttons.append(button);
      }
      frame.append(buttons);
    }

    listen(frame) {
      frame.tabIndex = 0;
      frame.classList.add("movable");
      frame.setAttribute("role", "group");
      frame.setAttribute(
        "aria-label", "Map; arrow keys move it, plus and minus zoom, 0 resets"
      );
      frame.addEventListener("keydown", (event) => this.press(event));
      const view = this.svg;
      view.addEventListener("dblclick", (event) => {
        event.preventDefault();
        this.zoom(2, this.placeOf(event));
      });
      view.addEventListener("wheel", (event) => {
        // The wheel moves the page, until the map was clicked.
        if (!event.ctrlKey && !frame.contains(document.activeElement)) return;
        event.preventDefault();
        const step = Math.max(-1, Math.min(1, -event.deltaY / 100));
        this.zoom(2 ** step, this.placeOf(event));
      }, { passive: false });
      view.addEventListener("pointerdown", (event) => {
        const isTouch = event.pointerType === "touch";
        if (isTouch && !frame.contains(document.activeElement)) return;
        if (!isTouch && event.button !== 0) return;
        this.pointers.set(event.pointerId, event);
        this.began = this.pointers.size === 1 ? event : null;
        view.setPointerCapture(event.pointerId);
      });
      view.addEventListener("pointermove", (event) => this.drag(event));
      for (const end of ["pointerup", "pointercancel"]) {
        view.addEventListener(end, (event) => {
          this.pointers.delete(event.pointerId);
          if (end === "pointerup") this.click(event);
        });
      }
    }

    // A click is one pointer that did not move.
    click(event) {
      const { began } = this;
      this.began = null;
      if (!began || began.pointerId !== event.pointerId) return;
      const moved = Math.hypot(
        event.clientX - began.clientX, event.clientY - began.clientY
      );
      if (moved <= STILL) this.clicked(this.placeOf(event));
    }

    // One pointer moves the map, two zoom it.
    drag(event) {
      const before = this.pointers.get(event.pointerId);
      if (!before) return;
      const other = [...this.pointers.values()].find(
        (one) => one.pointerId !== event.pointerId
      );
      this.pointers.set(event.pointerId, event);
      const perPixel = this.unitsPerPixel();
      const share = other ? 0.5 : 1;
      this.move(
        (before.clientX - event.clientX) * perPixel * share,
        (before.clientY - event.clientY) * perPixel * share
      );
      if (!other) return;
      const apart = (one) => Math.hypot(
        one.clientX - other.clientX, one.clientY - other.clientY
      );
      this.zoom(apart(event) / Math.max(apart(before), 1), this.placeOf({
        clientX: (event.clientX + other.clientX) / 2,
        clientY: (event.clientY + other.clientY) / 2
      }));
    }

    press(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const { width, height } = this.shown;
      const act = {
        ArrowLeft: () => this.move(-width / 5, 0),
        ArrowRight: () => this.move(width / 5, 0),
        ArrowUp: () => this.move(0, -height / 5),
        ArrowDown: () => this.move(0, height / 5),
        "+": () => this.zoom(2),
        "=": () => this.zoom(2),
        "-": () => this.zoom(0.5),
        "0": () => this.show(this.first)
      }[event.key];
      if (!act) return;
      event.preventDefault();
      act();
    }
  }

  // Makes the map in a frame movable.
  function enhance(frame) {
    return new MovableMap(frame, frame.querySelector(".map"));
  }

  return { enhance };
})();
for (const frame of document.querySelectorAll(".map-frame")) {
  if (frame.querySelector(".map")) pointMaps.enhance(frame);
}
