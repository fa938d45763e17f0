"use strict";

// Everything that is told works without this; it adds keys, the map, whole texts in place, trials and live figures.
const byId = (id) => document.getElementById(id);
const announce = (words) => {
  const there = byId("announce");
  if (there) there.textContent = words;
};
const element = (name, text, className) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
};
// As the server writes numbers: three significant digits.
const significant = (value) => {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const magnitude = Math.abs(value);
  if (magnitude < 1e-4 || magnitude >= 1e6) return value.toExponential(2);
  return value.toFixed(Math.max(0, 2 - Math.floor(Math.log10(magnitude))));
};
const ask = async (address, options) => {
  const answer = await fetch(address, options);
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.error ?? `the server answers with ${answer.status}`);
  return told;
};

// A page of the server, of which a part is taken. Nothing in it runs.
const pageOf = async (address, options) => {
  const answer = await fetch(address, options);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (!answer.ok) throw new Error(page.querySelector(".notice p")?.textContent ?? `the server answers with ${answer.status}`);
  return page;
};

// Tokens whose activation is told. One of each text is on the way of the tabulator, and arrow keys go on from there.
const stopAt = (token) => {
  for (const other of token.parentElement.querySelectorAll("[data-value]")) other.tabIndex = other === token ? 0 : -1;
};
const stopInside = (text) => {
  const first = text.querySelector(".own[data-value]") ?? text.querySelector("[data-value]");
  if (first) stopAt(first);
};
for (const text of document.querySelectorAll(".example .text")) stopInside(text);
document.addEventListener("focusin", (event) => {
  if (!event.target.matches("[data-value]")) return;
  stopAt(event.target);
  announce(`${event.target.textContent}: activation ${event.target.dataset.value}`);
});
document.addEventListener("click", (event) => event.target.closest("[data-value]")?.focus());
const toToken = (event) => {
  const all = [...event.target.parentElement.querySelectorAll("[data-value]")];
  const at = all.indexOf(event.target);
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: all.length - 1 }[event.key];
  if (event.key === "Escape") event.target.blur();
  if (to === undefined) return false;
  event.preventDefault();
  all[to]?.focus();
  return true;
};

// Keys.
const follow = (selector) => document.querySelector(selector)?.click();
const steps = { j: "a[rel=next]", ArrowRight: "a[rel=next]", k: "a[rel=prev]", ArrowLeft: "a[rel=prev]" };
const toLevel = (direction) => {
  const all = [...document.querySelectorAll("h3.group")];
  if (!all.length) return;
  const at = all.indexOf(document.activeElement);
  const next = at < 0 ? (direction > 0 ? 0 : all.length - 1) : at + direction;
  const to = all[Math.min(all.length - 1, Math.max(0, next))];
  to.focus();
  to.scrollIntoView({ block: "start" });
};
const openHelp = () => {
  const help = byId("help");
  if (help && !help.open) help.showModal();
};
byId("help-button")?.addEventListener("click", openHelp);
let isGoing = false;
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest?.("input, select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (byId("help")?.open) return;
  if (event.target.closest?.("[role=application]") && event.key.startsWith("Arrow")) return;
  if (event.target.matches?.("[data-value]") && toToken(event)) return;
  if (isGoing) {
    isGoing = false;
    const way = document.querySelector(`a[data-go="${CSS.escape(event.key)}"]`);
    if (way) way.click();
    return;
  }
  const grade = document.querySelector(`button[data-grade="${CSS.escape(event.key)}"]`);
  if (grade) grade.click();
  else if (event.key in steps) follow(steps[event.key]);
  else if (event.key === "g") isGoing = true;
  else if (event.key === "b") byId("bookmark")?.click();
  else if (event.key === "c") byId("compare")?.click();
  else if (event.key === "[") toLevel(-1);
  else if (event.key === "]") toLevel(1);
  else if (event.key === "x") {
    const example = document.activeElement?.closest(".example") ?? document;
    example.querySelector("a.whole")?.click();
  } else if (event.key === "?") openHelp();
  else if (event.key === "n" || event.key === "/") {
    const field = byId(event.key === "n" ? "note" : "search");
    if (field) {
      event.preventDefault();
      field.focus();
      field.select();
    } else if (event.key === "/") follow('a[data-go="h"]');
  }
});

for (const select of document.querySelectorAll("select[data-submit]")) {
  select.addEventListener("change", () => select.form.requestSubmit());
}

// What stays empty is not said in the address.
for (const form of document.querySelectorAll("form[method=get]")) {
  form.addEventListener("formdata", (event) => {
    for (const [name, value] of [...event.formData]) if (value === "") event.formData.delete(name);
  });
}

// A whole text takes the place of its piece, and goes again.
for (const link of document.querySelectorAll("a.whole")) {
  const text = link.parentElement.querySelector("p.text");
  let piece = null;
  link.addEventListener("click", async (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button > 0) return;
    event.preventDefault();
    if (piece) {
      text.replaceChildren(...piece);
      piece = null;
      link.textContent = "whole text";
      return;
    }
    try {
      const page = await pageOf(link.href);
      piece = [...text.childNodes];
      text.replaceChildren(...document.adoptNode(page.querySelector(".example .text")).childNodes);
      stopInside(text);
      link.textContent = "only the piece";
      announce("The whole text is shown.");
    } catch (error) {
      announce(error.message);
      link.textContent = `not shown: ${error.message}`;
    }
  });
}

// The scale of a method: what the curves are there, and the text made nearest to it.
for (const box of document.querySelectorAll(".scales")) {
  const numbers = (text) => text.split(",").map((part) => (part === "" ? NaN : Number(part)));
  const scales = numbers(box.dataset.scales);
  const curves = [...box.querySelectorAll("data.curve")].map((data) => [data.textContent, numbers(data.value)]);
  const items = [...box.parentElement.querySelectorAll("li[data-scale]")];
  const [range, output] = [box.querySelector("input"), box.querySelector("output")];
  const show = () => {
    const scale = scales[Number(range.value)];
    const away = (item) => Math.abs(Number(item.dataset.scale) - scale);
    const nearest = items.reduce((best, item) => (away(item) < away(best) ? item : best), items[0]);
    for (const item of items) item.classList.toggle("picked", item === nearest);
    nearest.closest("details")?.setAttribute("open", "");
    const told = curves.map(([name, values]) => `${name} ${significant(values[Number(range.value)])}`);
    output.textContent = `${significant(scale)}: “${nearest.querySelector(".text").textContent}” (${told.join(", ")})`;
  };
  range.addEventListener("input", show);
  box.hidden = false;
  show();
}

// Trials.
const tell = (into, form, told) => {
  into.replaceChildren();
  // Each token is a button that asks what fires there.
  const words = element("p", undefined, "words");
  told.tokens.forEach((token, position) => {
    const word = element("button", token, "word");
    word.type = "button";
    word.disabled = position === 0;
    word.setAttribute("aria-pressed", String(form.elements.position.value === String(position)));
    word.addEventListener("click", () => {
      const is_chosen = form.elements.position.value === String(position);
      form.elements.position.value = is_chosen ? "" : String(position);
      form.requestSubmit();
    });
    words.append(word);
  });
  const where = form.elements.position.value === "" ? "fire" : "fire on this token";
  into.append(words, element("p", `${told.total} latents ${where}; ${told.latents.length} are shown.`, "note"));
  const table = element("table", undefined, "plain tried-latents");
  const head = element("tr");
  for (const name of ["Latent", "Strongest on", "Activation", "Rarer than", "Effect"]) {
    const cell = element("th", name);
    cell.scope = "col";
    head.append(cell);
  }
  table.append(head);
  for (const firing of told.latents) {
    const row = element("tr");
    const name = element("td");
    const link = element("a", `${firing.latent} ${firing.explanation ?? ""}`);
    link.href = form.dataset.latent.replace("ID", firing.latent);
    link.dir = "auto";
    name.append(link);
    const share = firing.quantile === null ? "–" : `${significant(firing.quantile * 100)} %`;
    row.append(name, element("td", told.tokens[firing.position]), element("td", significant(firing.value)));
    row.append(element("td", share), element("td", significant(firing.effect)));
    table.append(row);
  }
  into.append(table);
};
for (const form of document.querySelectorAll("form.try")) {
  const into = form.parentElement.querySelector(".tried");
  const run = async () => {
    const fields = Object.fromEntries(new FormData(form));
    into.replaceChildren(element("p", "Running …", "note"));
    try {
      if (form.method === "post") {
        const page = await pageOf(form.action, { method: "POST", body: new URLSearchParams(fields) });
        into.replaceChildren(...document.adoptNode(page.querySelector(".tried")).childNodes);
        stopInside(into);
        return;
      }
      const headers = { "content-type": "application/json" };
      tell(into, form, await ask(form.dataset.try, { method: "POST", headers, body: JSON.stringify(fields) }));
      if ("keep" in form.dataset) {
        const address = new URL(location.href);
        for (const [name, value] of Object.entries(fields)) address.searchParams.set(name, value);
        history.replaceState(null, "", address);
      }
    } catch (error) {
      into.replaceChildren(element("p", error.message, "abstained"));
    }
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  form.addEventListener("change", (event) => {
    if (event.target.matches("select") && form.reportValidity()) run();
  });
  if ("keep" in form.dataset && form.elements.text.value) run();
}

// A page of what is under way looks for newer figures, until it has those of the end.
const look = async () => {
  const there = document.querySelector("[data-refresh]");
  if (!there || document.hidden) return;
  const unanswered = byId("unanswered");
  try {
    const newer = (await pageOf(location.href, { cache: "no-store" })).getElementById(there.id);
    if (!newer) throw new Error("it answers with another page");
    const focused = document.activeElement?.getAttribute("href");
    there.replaceWith(document.adoptNode(newer));
    if (unanswered?.isConnected) unanswered.hidden = true;
    if (focused) newer.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  } catch (error) {
    if (unanswered) {
      unanswered.textContent = `The server is not heard: ${error.message}. These are the last figures it gave.`;
      unanswered.hidden = false;
    }
  }
};
const refresh = Number(document.querySelector("[data-refresh]")?.dataset.refresh);
if (refresh > 0) {
  setInterval(look, refresh * 1000);
  document.addEventListener("visibilitychange", look);
}

// The map.
const colours = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
const colourOf = (share) => {
  const at = Math.min(0.9999, Math.max(0, share)) * (colours.length - 1);
  const [low, high, part] = [colours[Math.floor(at)], colours[Math.floor(at) + 1], at % 1];
  return `rgb(${low.map((from, i) => Math.round(from + (high[i] - from) * part)).join(",")})`;
};
const drawMap = (box, map) => {
  const [canvas, words] = [box.querySelector("canvas"), byId("map-point")];
  const context = canvas.getContext("2d");
  const place = (value) => (map.is_logarithmic ? (value > 0 ? Math.log(value) : NaN) : value ?? NaN);
  const values = map.values.map(place);
  const known = values.filter(Number.isFinite);
  const [least, most] = known.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  const share = (value) => (most > least ? (value - least) / (most - least) : 0.5);
  const ends = (list) => list.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  const [[x0, x1], [y0, y1]] = [ends(map.x), ends(map.y)];
  // Points of one colour are drawn together: changing the colour for each of a hundred thousand takes longer than drawing them.
  const shades = 32;
  const groups = Array.from({ length: shades + 1 }, () => []);
  values.forEach((value, i) => {
    groups[Number.isFinite(value) ? Math.min(shades - 1, Math.floor(share(value) * shades)) : shades].push(i);
  });
  const view = { zoom: 1, x: 0, y: 0 };
  let chosen = -1;
  const size = () => [canvas.clientWidth, canvas.clientHeight];
  const at = (i) => {
    const [width, height] = size();
    const scale = Math.min(width / (x1 - x0 || 1), height / (y1 - y0 || 1)) * 0.94 * view.zoom;
    return [
      width / 2 + (map.x[i] - (x0 + x1) / 2) * scale + view.x,
      height / 2 - (map.y[i] - (y0 + y1) / 2) * scale + view.y,
    ];
  };
  const draw = () => {
    const [width, height] = size();
    const ratio = devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    context.scale(ratio, ratio);
    const radius = Math.min(4, (map.x.length > 20000 ? 1 : 2) * Math.sqrt(view.zoom));
    groups.forEach((group, shade) => {
      context.fillStyle = shade === shades ? "rgba(128,128,128,0.4)" : colourOf((shade + 0.5) / shades);
      for (const i of group) {
        const [x, y] = at(i);
        if (x > -9 && y > -9 && x < width + 9 && y < height + 9) context.fillRect(x - radius, y - radius, radius * 2, radius * 2);
      }
    });
    if (chosen >= 0) {
      const [x, y] = at(chosen);
      context.strokeStyle = getComputedStyle(canvas).color;
      context.lineWidth = 2;
      context.beginPath();
      context.arc(x, y, radius + 5, 0, 7);
      context.stroke();
    }
  };
  const choose = (i) => {
    chosen = i;
    words.textContent = i < 0 ? `${map.x.length} latents` : `Latent ${map.latents[i]}: ${map.title} ${significant(map.values[i])}`;
    draw();
  };
  const open = () => {
    if (chosen >= 0) location.href = box.dataset.latent.replace("ID", map.latents[chosen]);
  };
  // The nearest point, of those in a direction if there is one.
  const nearest = (x, y, direction, limit) => {
    let [best, least] = [-1, limit];
    for (let i = 0; i < map.x.length; i++) {
      const [px, py] = at(i);
      const [dx, dy] = [px - x, py - y];
      if (direction && (i === chosen || dx * direction[0] + dy * direction[1] <= 0.7 * Math.hypot(dx, dy))) continue;
      const distance = Math.hypot(dx, dy);
      if (distance < least) [best, least] = [i, distance];
    }
    return best;
  };
  const zoom = (factor, x, y) => {
    const [width, height] = size();
    const after = Math.min(400, Math.max(1, view.zoom * factor));
    const change = after / view.zoom;
    view.x = (view.x - (x - width / 2)) * change + (x - width / 2);
    view.y = (view.y - (y - height / 2)) * change + (y - height / 2);
    view.zoom = after;
    draw();
  };
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    drag = { x: event.offsetX, y: event.offsetY, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag) return choose(nearest(event.offsetX, event.offsetY, null, 16));
    const [dx, dy] = [event.offsetX - drag.x, event.offsetY - drag.y];
    if (!drag.moved && Math.hypot(dx, dy) < 4) return;
    view.x += dx;
    view.y += dy;
    drag = { x: event.offsetX, y: event.offsetY, moved: true };
    draw();
  });
  canvas.addEventListener("pointerup", (event) => {
    const wasMoved = drag?.moved;
    drag = null;
    if (wasMoved) return;
    choose(nearest(event.offsetX, event.offsetY, null, 24));
    open();
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.25 : 0.8, event.offsetX, event.offsetY);
  }, { passive: false });
  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const [width, height] = size();
    if (event.key in ways) {
      event.preventDefault();
      const [x, y] = chosen < 0 ? [width / 2, height / 2] : at(chosen);
      const next = nearest(x, y, chosen < 0 ? null : ways[event.key], Infinity);
      if (next >= 0) choose(next);
    } else if (event.key === "Enter") open();
    else if (event.key === "+" || event.key === "-") zoom(event.key === "+" ? 1.5 : 1 / 1.5, width / 2, height / 2);
  });
  const legend = box.querySelector(".legend");
  const bar = legend.querySelector("canvas").getContext("2d");
  for (let x = 0; x < 160; x++) {
    bar.fillStyle = colourOf(x / 160);
    bar.fillRect(x, 0, 1, 10);
  }
  const value = (place) => significant(map.is_logarithmic ? Math.exp(place) : place);
  legend.querySelector(".low").textContent = known.length ? value(least) : "";
  legend.querySelector(".high").textContent = known.length ? value(most) : "";
  legend.hidden = !known.length;
  new ResizeObserver(draw).observe(canvas);
  choose(-1);
};
for (const box of document.querySelectorAll("[data-map]")) {
  ask(box.dataset.map).then(
    (map) => drawMap(box, map),
    (error) => (byId("map-point").textContent = `No map: ${error.message}`),
  );
}
