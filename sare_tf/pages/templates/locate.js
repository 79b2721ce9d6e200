"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const drop = byId("drop"), input = byId("photo"), status = byId("status");
  const large = byId("large");
  const mostBytes = Number(document.body.dataset.uploadBytes);
  const k = Number(document.body.dataset.k);
  const tilesAddress = document.body.dataset.tiles || "";
  const mebibytes = mostBytes / 1048576;
  // A photograph: { name, preview, state, answer or error, button }.
  const lines = new MatchLines(
    byId("match-lines"), byId("large-query"), byId("large-match")
  );
  const known = byId("near-match")
    ? new KnownPosition(byId("known")) : null;
  // Ours: letters of an address that servers take.
  const mostRegion = 100000;
  let photos = [], current = null, map = null, tiles = null;
  let isAsking = false, enlarged = 0;

  function make(tag, text, name) {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (name) element.className = name;
    return element;
  }

  function say(text, failed) {
    status.textContent = text;
    status.classList.toggle("failed", Boolean(failed));
  }

  function degrees(match) {
    if (match.latitude === null) return "";
    return match.latitude.toFixed(6) + ", " + match.longitude.toFixed(6);
  }

  function metres(match) {
    if (match.utm_east_m === null) return "";
    return match.utm_east_m.toFixed(1) + " m E, " +
      match.utm_north_m.toFixed(1) + " m N";
  }

  // The file, with its folder: files of several places may have one name. Of an
  // @ name, what follows its coordinates.
  function shortName(match) {
    const parts = match.image_id.split("/"), file = parts[parts.length - 1];
    const others = file.startsWith("@")
      ? file.slice(0, file.lastIndexOf(".")).split("@").slice(7) : [];
    return others.filter(Boolean).join(" ") || parts.slice(-2).join("/");
  }

  function inliers(match) {
    if (match.inliers === null) return "";
    return match.inliers + (match.inliers === 1 ? " inlier" : " inliers");
  }

  function placeOfAnswer(answer) {
    return answer.position || answer.matches[0];
  }

  function placeOf(match) {
    return match.place_id ? "place " + match.place_id : "";
  }

  function whereIs(match) {
    return placeOf(match) || degrees(match) || metres(match) || shortName(match);
  }

  function link(match, text) {
    const element = make("a", text);
    element.href = match.map_url;
    element.target = "_blank";
    element.rel = "noopener noreferrer";
    return element;
  }

  function row(table, name, value) {
    if (!value) return;
    const line = make("tr");
    const cell = make("td");
    cell.append(value);
    line.append(make("th", name), cell);
    table.append(line);
  }

  function showWhere(answer) {
    const first = answer.matches[0], table = byId("where");
    byId("headline").textContent = answer.rejected
      ? "Not in this database"
      : degrees(first) || metres(first) || first.place_id || first.image_id;
    table.replaceChildren();
    showPosition(answer.position, table);
    row(table, ("UTM " + first.utm_zone).trim(), metres(first));
    row(table, "place", first.place_id);
    const same = answer.matches.filter((match) => match.same_place).length;
    row(table, "shown by", same + " of " + answer.matches.length + " matches");
    const searched = answer.searched;
    if (answer.reranked !== answer.confidence_text) {
      row(table, "re-ranking", answer.reranked);
    }
    row(table, "compared with", searched.images + " images" +
      (searched.places === null ? "" : " of " + searched.places + " places") +
      (searched.prior ? " " + searched.prior + ", out of " + searched.indexed
        : ""));
    if (first.map_url) row(table, "on a map", link(first, "OpenStreetMap"));
    showSure(answer);
  }

  // Where the matches together say that it was taken.
  function showPosition(position, table) {
    byId("ellipse-key").hidden = !position || !position.ellipses.length;
    if (!position) return;
    row(table, "position", degrees(position) || metres(position));
    if (position.heading_deg !== null) {
      row(table, "looking to", position.heading_deg.toFixed(0) + "°");
    }
    const text = position.text;
    row(table, "error", text.slice(text.indexOf("; ") + 2));
  }

  // A bar only for what was measured.
  function showSure(answer) {
    const measured = answer.reliability, sure = byId("sure");
    sure.textContent = answer.confidence_text;
    byId("sure-explained").textContent = answer.searched.prior
      ? "How often such answers are right was not measured for a search of a " +
        "part of the database."
      : measured
      ? "Measured on queries of " + measured.split + " whose places are known."
      : answer.confidence === null ? ""
      : "The margin says how much nearer the first match is than any other " +
        "place. How often such answers are right was not measured for this " +
        "database.";
    if (!measured) return;
    const meter = make("meter");
    meter.min = 0;
    meter.max = 1;
    meter.value = measured.right;
    meter.setAttribute("aria-label", "share of such answers that were right");
    sure.append(meter);
  }

  function showMatches(matches) {
    byId("matches").replaceChildren(...matches.map((match, index) => {
      const item = make("li", undefined, match.same_place ? "same" : "other");
      const figure = make("figure"), caption = make("figcaption");
      const rank = index + 1;
      if (match.thumbnail) {
        const button = make("button", undefined, "open"), image = make("img");
        button.type = "button";
        button.title = "Open large";
        image.src = match.thumbnail;
        image.alt = "Match " + rank + ", " + whereIs(match) +
          (match.same_place ? "" : ", another place") + ": open large";
        button.append(image);
        button.addEventListener("click", () => openLarge(index));
        figure.append(button);
      } else {
        figure.append(make("div", "not in the records", "absent"));
      }
      caption.append(make(
        "span", rank + " · d² " + match.squared_distance.toFixed(3), "label"
      ));
      const place = placeOf(match);
      if (place) caption.append(make("span", place, "place"));
      caption.append(make(
        "span",
        index === 0 ? "first match" : match.same_place
          ? "same place as the first" : "another place"
      ));
      if (inliers(match)) caption.append(make("span", inliers(match)));
      if (match.map_url) caption.append(link(match, degrees(match)));
      else if (metres(match)) caption.append(make("span", metres(match)));
      const name = make("span", shortName(match), "name");
      name.title = match.image_id;
      caption.append(name);
      figure.append(caption);
      item.append(figure);
      for (const [event, on] of [
        ["pointerenter", true], ["focusin", true],
        ["pointerleave", false], ["focusout", false]
      ]) item.addEventListener(event, () => point(rank, on));
      return item;
    }));
  }

  // Shows on the map which mark is a match.
  function point(rank, on) {
    for (const mark of byId("map").querySelectorAll(".mark")) {
      const isThis = mark.dataset.marks.split(" ").includes(String(rank));
      mark.classList.toggle("pointed", on && isThis);
    }
  }

  function showMap(drawing) {
    byId("map-panel").hidden = !drawing;
    byId("map").replaceChildren();
    map = null;
    if (!drawing) return;
    const drawn = new DOMParser().parseFromString(drawing, "image/svg+xml");
    byId("map").append(document.adoptNode(drawn.documentElement));
    map = pointMaps.enhance(byId("map"));
    if (known) known.attach(map);
    const choice = byId("tiles-choice");
    if (!choice) return;
    choice.hidden = !byId("map").firstChild.dataset.world;
    showTiles(byId("tiles").getAttribute("aria-pressed") === "true");
  }

  function showTiles(on) {
    byId("tiles").setAttribute("aria-pressed", on);
    byId("attribution").hidden = !on;
    if (tiles) tiles.remove();
    tiles = null;
    if (on && map && map.svg.dataset.world) {
      tiles = new MapTiles(map, tilesAddress);
    }
  }

  function select(photo) {
    current = photo;
    for (const one of photos) {
      one.button.setAttribute("aria-current", one === photo);
    }
    byId("answer").hidden = !(photo && photo.answer);
    if (byId("near-match")) {
      byId("near-match").disabled =
        !(photo && photo.answer && degrees(placeOfAnswer(photo.answer)));
    }
    if (!photo) return;
    if (!photo.answer) {
      say(photo.error || "Looking for this place …", photo.error);
      return;
    }
    byId("query").src = photo.preview;
    byId("query").alt = "The photograph " + photo.name + ": open large";
    byId("query-name").textContent = photo.name;
    showWhere(photo.answer);
    showMatches(photo.answer.matches);
    showMap(photo.answer.map);
  }

  function openLarge(index) {
    const matches = current.answer.matches, match = matches[index];
    enlarged = index;
    byId("large-title").textContent =
      "Match " + (index + 1) + " of " + matches.length + ": " + whereIs(match);
    byId("large-query").src = current.preview;
    byId("large-match").src =
      "/image?id=" + encodeURIComponent(match.image_id);
    byId("large-match").alt = "Match " + (index + 1) + ", " + whereIs(match);
    byId("large-name").textContent = match.image_id;
    byId("previous").disabled = index === 0;
    byId("next").disabled = index === matches.length - 1;
    byId("lines-choice").hidden = !match.lines.length;
    byId("lines-text").textContent = inliers(match) +
      ": a line joins local features of both pictures that agree on one " +
      "geometry" + (match.inliers > match.lines.length
        ? "; " + match.lines.length + " are drawn." : ".");
    if (!large.open) large.showModal();
    lines.show(match.lines);
  }

  function step(by) {
    const index = enlarged + by;
    if (index >= 0 && index < current.answer.matches.length) openLarge(index);
  }

  function refresh(photo) {
    const [image, name, line] = photo.button.children;
    image.src = photo.preview;
    name.textContent = photo.name;
    line.textContent = photo.error || (photo.answer
      ? (photo.answer.rejected ? "not in this database"
        : whereIs(photo.answer.matches[0]))
      : "waiting");
    photo.button.classList.toggle("failed", Boolean(photo.error));
  }

  function add(file, name) {
    const photo = {
      file, name, preview: URL.createObjectURL(file), button: make("button")
    };
    const image = make("img"), item = make("li");
    image.alt = "";
    photo.button.type = "button";
    photo.button.append(image, make("b"), make("span"));
    photo.button.addEventListener("click", () => {
      select(photo);
      if (photo.answer) byId("headline").focus({ preventScroll: true });
    });
    item.append(photo.button);
    byId("photos").append(item);
    photos.push(photo);
    refresh(photo);
    byId("list").hidden = photos.length < 2;
    return photo;
  }

  // What is known of the photographs, for the address of a request.
  function knownBefore() {
    const form = byId("known"), asked = new URLSearchParams({ k });
    if (!form) return asked;
    for (const [name, value] of new FormData(form)) {
      const text = name === "region" ? compact(value) : value.trim();
      // A distance means nothing without its point.
      if (text && !(name === "within_m" && !form.near.value.trim())) {
        asked.set(name, text);
      }
    }
    return asked;
  }

  // GeoJSON without its spaces, for an address.
  function compact(text) {
    try {
      return JSON.stringify(JSON.parse(text));
    } catch {
      return text.trim();
    }
  }

  async function ask(photo) {
    if (photo.asked.length > mostRegion) {
      return { error: "The region is too long: simplify its polygons." };
    }
    const tooLarge = "This photograph is larger than " + mebibytes + " MiB.";
    if (photo.file.size > mostBytes) return { error: tooLarge };
    try {
      const response = await fetch("/locate?" + photo.asked, {
        method: "POST",
        body: photo.file,
        headers: { "Content-Type": "application/octet-stream" }
      });
      return await response.json().catch(() => ({
        error: response.status === 413 ? tooLarge
          : "The server answered with status " + response.status + "."
      }));
    } catch {
      return { error: "The server cannot be reached. Is it still running?" };
    }
  }

  // Photographs are asked one at a time, in their order.
  async function work() {
    if (isAsking) return;
    isAsking = true;
    let photo;
    while ((photo = photos.find((one) => !one.answer && !one.error))) {
      const place = photos.length > 1
        ? " (" + (photos.indexOf(photo) + 1) + " of " + photos.length + ")" : "";
      say("Looking for this place …" + place);
      photo.asked = knownBefore().toString();
      const asked = photo.asked, answer = await ask(photo);
      // Asked again meanwhile, with something else known.
      if (photo.asked !== asked) continue;
      if (answer.error) photo.error = answer.error;
      else {
        photo.answer = answer;
        // Of a file that browsers cannot show.
        if (answer.preview) photo.preview = answer.preview;
      }
      refresh(photo);
      if (photo === current || !(current && current.answer)) {
        if (photos.includes(photo)) select(photo);
        if (photo.answer) byId("headline").focus({ preventScroll: true });
      }
    }
    isAsking = false;
    report();
  }

  function report() {
    const failed = photos.filter((one) => one.error);
    if (photos.length === 1 && failed.length) say(failed[0].error, true);
    else if (!photos.length) say("");
    else {
      say(
        "Looked up " + (photos.length - failed.length) + " of " +
        photos.length + (photos.length === 1 ? " photograph." : " photographs.")
      );
    }
  }

  function askAgain() {
    for (const photo of photos) {
      photo.answer = photo.error = photo.asked = undefined;
      refresh(photo);
    }
    if (photos.length) select(current || photos[0]);
    work();
  }

  function clear() {
    for (const photo of photos) URL.revokeObjectURL(photo.preview);
    photos = [];
    byId("photos").replaceChildren();
    byId("list").hidden = true;
    select(null);
    say("");
    input.focus();
  }

  function take(files) {
    const taken = [...(files || [])].map((file) => add(file, file.name));
    if (!taken.length) return;
    select(taken[0]);
    work();
  }

  input.addEventListener("change", () => {
    take(input.files);
    // The same file may be chosen again.
    input.value = "";
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    take(event.clipboardData.files);
  });
  for (const button of document.querySelectorAll("#examples button")) {
    button.addEventListener("click", async () => {
      const name = button.dataset.imageId;
      const response = await fetch("/image?id=" + encodeURIComponent(name));
      if (!response.ok) {
        say("The records no longer have this image.", true);
        return;
      }
      select(add(await response.blob(), name));
      work();
    });
  }
  byId("clear").addEventListener("click", clear);
  if (byId("known")) {
    byId("known").addEventListener("submit", (event) => event.preventDefault());
    byId("known").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.target.tagName !== "INPUT") return;
      if (event.target.type === "file") return;
      event.preventDefault();
      askAgain();
    });
    byId("ask-again").addEventListener("click", askAgain);
    byId("forget").addEventListener("click", () => {
      byId("known").reset();
      if (known) known.draw();
      askAgain();
    });
  }
  if (byId("near-match")) {
    byId("near-match").addEventListener("click", () => {
      byId("known").near.value = degrees(placeOfAnswer(current.answer));
      askAgain();
    });
    byId("region-file").addEventListener("change", async () => {
      const [file] = byId("region-file").files;
      if (!file) return;
      byId("known").region.value = await file.text();
      known.draw();
    });
  }
  byId("photos").addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!by) return;
    const at = photos.findIndex((one) => one.button === event.target);
    const next = photos[at + by];
    if (!next) return;
    event.preventDefault();
    next.button.focus();
    select(next);
  });
  if (byId("tiles")) {
    byId("tiles").addEventListener("click", () => {
      showTiles(byId("tiles").getAttribute("aria-pressed") !== "true");
    });
  }
  byId("lines").addEventListener("click", () => {
    const on = byId("lines").getAttribute("aria-pressed") !== "true";
    byId("lines").setAttribute("aria-pressed", on);
    lines.isShown = on;
    lines.draw();
  });
  byId("open-query").addEventListener("click", () => openLarge(0));
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("close").addEventListener("click", () => large.close());
  large.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  large.addEventListener("click", (event) => {
    if (event.target === large) large.close();
  });
})();
