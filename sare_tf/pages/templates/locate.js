"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const drop = byId("drop"), input = byId("photo"), status = byId("status");
  const mostBytes = Number(document.body.dataset.uploadBytes);
  const k = Number(document.body.dataset.k);
  const mebibytes = mostBytes / 1048576;
  let preview = "", latest = 0;

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
    byId("headline").textContent = answer.rejected ? "Not in this database" :
      degrees(first) || metres(first) || first.place_id || first.image_id;
    table.replaceChildren();
    row(table, ("UTM " + first.utm_zone).trim(), metres(first));
    row(table, "place", first.place_id);
    const same = answer.matches.filter((match) => match.same_place).length;
    row(table, "shown by", same + " of " + answer.matches.length + " matches");
    const searched = answer.searched;
    row(table, "compared with", searched.images + " images" +
      (searched.places === null ? "" : " of " + searched.places + " places"));
    if (first.map_url) row(table, "on a map", link(first, "OpenStreetMap"));
    byId("sure").textContent = answer.confidence_text;
  }

  function showMatches(matches) {
    byId("matches").replaceChildren(...matches.map((match, index) => {
      const item = make("li", undefined, match.same_place ? "same" : "other");
      const figure = make("figure"), caption = make("figcaption");
      if (match.thumbnail) {
        const image = make("img");
        image.src = match.thumbnail;
        image.alt = "Match " + (index + 1) + ": " + match.image_id;
        figure.append(image);
      } else {
        figure.append(make("div", "not in the records", "absent"));
      }
      caption.append(make(
        "span",
        (index + 1) + " · d² " + match.squared_distance.toFixed(3),
        "label"
      ));
      if (match.map_url) caption.append(link(match, degrees(match)));
      else caption.append(make("span", metres(match)));
      const parts = match.image_id.split("/");
      const name = make("span", parts[parts.length - 1], "name");
      name.title = match.image_id;
      caption.append(name);
      // Files of several places often have the same names.
      if (match.place_id) caption.append(make("span", match.place_id, "name"));
      figure.append(caption);
      item.append(figure);
      return item;
    }));
  }

  function showMap(map) {
    byId("map-panel").hidden = !map;
    if (!map) return;
    const drawn = new DOMParser().parseFromString(map, "image/svg+xml");
    byId("map").replaceChildren(document.adoptNode(drawn.documentElement));
  }

  async function locate(file) {
    const turn = ++latest;
    byId("answer").hidden = true;
    if (file.size > mostBytes) {
      say("This photograph is larger than " + mebibytes + " MiB.", true);
      return;
    }
    say("Looking for this place …");
    let answer;
    try {
      const response = await fetch("/locate?k=" + k, {
        method: "POST",
        body: file,
        headers: { "Content-Type": "application/octet-stream" }
      });
      answer = await response.json().catch(() => ({
        error: response.status === 413
          ? "This photograph is larger than " + mebibytes + " MiB."
          : "The server answered with status " + response.status + "."
      }));
    } catch {
      answer = { error: "The server cannot be reached. Is it still running?" };
    }
    if (turn !== latest) return;
    if (answer.error) {
      say(answer.error, true);
      return;
    }
    if (preview) URL.revokeObjectURL(preview);
    preview = URL.createObjectURL(file);
    byId("query").src = preview;
    showWhere(answer);
    showMatches(answer.matches);
    showMap(answer.map);
    byId("answer").hidden = false;
    say("The most similar images are below.");
    byId("headline").focus({ preventScroll: true });
  }

  function first(files) {
    if (files && files.length) locate(files[0]);
  }

  input.addEventListener("change", () => {
    first(input.files);
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
    first(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    first(event.clipboardData.files);
  });
})();
