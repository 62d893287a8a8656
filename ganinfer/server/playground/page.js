// The page: a state of the controls, the plan of its pictures, and what is done with them.

import * as controls from "./controls.js";
import { PIN, fields, find, form, linkOf, linked, set, stateOf } from "./controls.js";
import { Refused, planOf, rest, seedAfter, sheetOf, widthOf } from "./pictures.js";
import { snippet } from "./snippets.js";
import * as source from "./source.js"; // of the pixels: a server, or the page itself

const KEY = "ganpipe.key";
const FILMS = { gif: "GIF", webp: "WebP", mp4: "MP4" };

const [sheet, frame, door] = [find("sheet"), document.querySelector(".frame"), find("door")];
const keyOf = () => sessionStorage.getItem(KEY);

let about; // what is known of the model
let shown; // the state, plan, canvases and more of the picture that is there
let running = new AbortController(); // of the newest request; older ones are given up

function make(name, properties, ...inside) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...inside);
  return made;
}

// The model that a link names.

async function begin(params) {
  const signal = restart();
  try {
    const asking = { key: keyOf(), signal };
    const names = await source.models(asking);
    controls.fill("model", names.map((name) => [name, name]));
    find("models").hidden = names.length < 2;
    about = await source.aboutOf(params.get("model") ?? names[0], asking);
  } catch (error) {
    return complain(error, signal);
  }
  controls.introduce(about);
  introduce();
  if (!shown) document.body.dataset.state = "known";
  find("views").disabled = false;
  controls.adopt(params, about);
  changed();
}

function introduce() {
  const { model, height, width, channels, bundle, films } = about;
  sheet.classList.toggle("small", Math.max(height, width) < 128);
  sheet.classList.toggle("clear", channels === 4);
  find("films").replaceChildren(...films.map(filmButton));
  const name = find("models").hidden ? `${model} · ` : "";
  find("facts").textContent = `${name}${width} × ${height} · bundle ${bundle.slice(0, PIN)}`;
  find("proof").textContent = about.proof ?? "";
  find("proof").hidden = about.proof === undefined;
  document.title = `${model} · Playground`;
}

function changed() {
  controls.arrange(about);
  show();
  remember();
}

let remembering;
function remember() {
  clearTimeout(remembering); // browsers refuse to write it many times a second
  const write = () => history.replaceState(null, "", linkOf(stateOf()));
  remembering = setTimeout(write, 150);
}

// The picture: the newest wins.

function restart() {
  running.abort();
  running = new AbortController();
  frame.ariaBusy = "true";
  return running.signal;
}

async function show() {
  const signal = restart();
  try {
    const state = stateOf();
    const plan = planOf(state, about);
    const begun = performance.now();
    const picture = await source.draw(state, plan, about, { key: keyOf(), signal });
    const latency = performance.now() - begun;
    if (signal.aborted) return;
    const canvases = tilesFor(state, plan);
    picture.paint(canvases);
    shown = { state, plan, canvases, ...picture };
    tell(latency);
  } catch (error) {
    complain(error, signal);
  }
}

/** Canvases for the tiles of a plan; those that are there are painted over. */
function tilesFor(state, plan) {
  const tiles = plan.flatMap((picture) => picture.tiles);
  const columns = plan[0].columns ?? 1;
  const rows = Math.ceil(tiles.length / columns);
  sheet.style.setProperty("--columns", columns);
  sheet.style.setProperty("--rows", rows);
  sheet.style.setProperty("--shape", (columns * widthOf(about)) / (rows * about.height));
  const kind = `${plan.length} of ${tiles.length}`;
  if (sheet.dataset.kind !== kind) {
    sheet.dataset.kind = kind;
    sheet.classList.toggle("labelled", plan.length > 1);
    sheet.replaceChildren(...plan.flatMap((picture) => rowOf(picture, tiles.length > 1)));
  }
  const places = [...sheet.querySelectorAll(".tile")];
  places.forEach((place, i) => describe(place, tiles[i], state));
  return places.map((place) => place.firstChild);
}

function rowOf({ tiles }, areMany) {
  const [{ truncation }] = tiles;
  const label = make("span", { className: "value" }, truncation ?? "");
  const tile = () =>
    areMany
      ? make("button", { className: "tile", type: "button" }, make("canvas"))
      : make("div", { className: "tile" }, make("canvas", { role: "img" }));
  return [...(truncation === undefined ? [] : [label]), ...tiles.map(tile)];
}

function describe(place, { seed, truncation }, state) {
  const name = `Seed ${seed}${truncation === undefined ? "" : `, truncation ${truncation}`}`;
  place.firstChild.ariaLabel = caption(state);
  if (place.type !== "button") return;
  Object.assign(place, { title: name, ariaLabel: `${name}: show it alone` });
  place.onclick = () => open(seed, truncation);
}

function open(seed, truncation) {
  history.replaceState(null, "", linkOf(shown.state));
  set("view", "seeds");
  set("seed", seed);
  set("n", "1");
  if (truncation !== undefined) set("truncation", truncation);
  history.pushState(null, "", linkOf(stateOf()));
  changed();
  sheet.focus();
}

function goTo(link) {
  clearTimeout(remembering);
  history.pushState(null, "", link);
  begin(linked());
}

function caption({ view, seed, to, t, n, label, blend, share, truncation }) {
  const last = () => seedAfter(seed, BigInt(n) - 1n);
  const what = {
    seeds: () => (n === "1" ? `Seed ${seed}` : `Seeds ${seed} to ${last()}`),
    way: () => `From seed ${seed} to ${to}, at ${t}`,
    truncations: () => `Seed ${seed} on, by truncation`,
  }[view]();
  const classes = blend ? `${rest(share)} of ${label}, ${Number(share)} of ${blend}` : label;
  const more = [classes && `class ${classes}`, truncation && `truncation ${truncation}`];
  return [what, ...more.filter(Boolean)].join(" · ");
}

function tell(latency) {
  const { length } = shown.canvases;
  const ms = Math.round(latency);
  find("caption").textContent = caption(shown.state);
  find("latency").textContent = `${length} image${length > 1 ? "s" : ""} in ${ms} ms`;
  find("problem").hidden = door.hidden = true;
  frame.ariaBusy = "false";
  document.body.dataset.state = "shown";
  say("");
  showCode();
}

function complain(error, signal) {
  if (signal?.aborted) return; // nobody waits for it
  if (!(error instanceof Refused)) throw error;
  const [text, button] = find("problem").children;
  text.textContent = error.message;
  button.hidden = !(error.status === 404 && about?.model === fields.model.value); // the pin is old
  door.hidden = error.status !== 401;
  find("problem").hidden = error.status === 401 && !keyOf();
  find("latency").textContent = "";
  frame.ariaBusy = "false";
}

function useServing() {
  const { bundle, ...others } = stateOf();
  begin(new URLSearchParams(others));
}

// What is done with it.

const say = (words) => (find("status").textContent = words);

function save(blob, name) {
  const href = URL.createObjectURL(blob);
  make("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}

/** The source's own file, or all tiles on one sheet. */
async function savePng() {
  const { file, canvases, plan, state } = shown;
  const drawn = () => sheetOf(canvases, plan[0].columns ?? 1);
  const joined = () => new Promise((done) => drawn().toBlob(done));
  save(file ?? (await joined()), `${about.model}-${state.seed}.png`);
}

function filmButton(kind) {
  const ariaLabel = `Download the way as ${FILMS[kind]}`;
  const button = make("button", { type: "button", ariaLabel }, FILMS[kind]);
  button.onclick = async () => {
    button.disabled = true;
    await saveFilm(kind).catch(complain);
    button.disabled = false;
    say("");
  };
  return button;
}

async function saveFilm(kind) {
  const state = stateOf();
  say("Filming …");
  const film = await source.film(state, about, kind, { key: keyOf() });
  save(film, `${about.model}-${state.seed}-${state.to}.${kind}`);
}

async function copy(text, words) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", { value: text }); // where there is no https
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  say(words);
}

function showCode() {
  if (!shown) return;
  const client = document.querySelector("[name=client]:checked").value;
  find("code").textContent = snippet(client, shown, about, keyOf() !== null);
}

// Favourites.

const kept = () => JSON.parse(localStorage.getItem(source.FAVOURITES) ?? "[]");

function keep() {
  const { state, canvases, plan } = shown;
  const link = linkOf(state);
  const picture = sheetOf(canvases, plan[0].columns ?? 1, 168).toDataURL();
  const others = kept().filter((other) => other.link !== link);
  store([{ link, picture, title: `${about.model}: ${caption(state)}` }, ...others], "Kept");
}

function store(favourites, words) {
  try {
    localStorage.setItem(source.FAVOURITES, JSON.stringify(favourites));
    say(words);
  } catch {
    say("This browser has no room for more; drop some");
  }
  listFavourites();
}

function listFavourites() {
  const items = kept().map(favourite);
  find("favourites").replaceChildren(...items);
  find("none-kept").hidden = items.length > 0;
}

function favourite({ link, picture, title }) {
  const image = make("img", { src: picture, alt: "" });
  const again = make("button", { type: "button", title, ariaLabel: `Show ${title}` }, image);
  const drop = make("button", { type: "button", ariaLabel: `Drop ${title}` }, "Drop");
  drop.className = "drop";
  again.onclick = () => goTo(link);
  drop.onclick = () => store(kept().filter((other) => other.link !== link), "Dropped");
  return make("li", {}, again, drop);
}

// What the controls do.

function step(count) {
  const tiles = shown?.plan[0].tiles.length ?? 1;
  set("seed", seedAfter(fields.seed.value, count * BigInt(tiles)));
  changed();
}

function randomInto(name) {
  set(name, String(crypto.getRandomValues(new Uint32Array(1))[0]));
  changed();
}

function untruncate() {
  set("truncation", "");
  controls.follow(find("truncation").parentElement);
  changed();
}

document.addEventListener("input", ({ target }) => {
  if (target.validity.badInput || target.validity.valueMissing) return; // more is to be typed
  const pair = target.closest(".pair");
  if (target.type === "range") pair.children[1].value = target.value;
  if (pair) controls.follow(pair);
  if (target.name === "client") showCode();
  else if (target.name === "model") begin(new URLSearchParams({ model: target.value }));
  else if (pair || target.form === form) changed();
});
form.addEventListener("submit", (event) => event.preventDefault());
door.addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, find("key").value);
  begin(linked());
});
addEventListener("popstate", () => begin(linked()));
const copyLink = () => copy(new URL(linkOf(shown.state), location.href).href, "Link copied");
const doers = {
  previous: () => step(-1n),
  next: () => step(1n),
  random: () => randomInto("seed"),
  "random-to": () => randomInto("to"),
  untruncate,
  keep,
  png: savePng,
  link: copyLink,
  copy: () => copy(find("code").textContent, "Code copied"),
  serving: useServing,
};
for (const [id, does] of Object.entries(doers)) find(id).onclick = does;

const clients = [...document.querySelectorAll("[name=client]")];
for (const client of clients) client.parentElement.hidden = !source.CLIENTS.includes(client.value);
clients.find((client) => client.value === source.CLIENTS[0]).checked = true;
find("clients").hidden = source.CLIENTS.length === 1;
listFavourites();
begin(linked());
