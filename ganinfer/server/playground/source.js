// Pixels from the server that this page came from: which URLs show a state, and their tiles.

import { Refused, rest, widthOf } from "./pictures.js";

const GAP = 2; // white pixels between the tiles of a grid

export const CLIENTS = ["curl", "python", "triton", "openai"];
export const FAVOURITES = "ganpipe.favourites";

/** The names of the models. */
export async function models({ key, signal }) {
  const { data } = await (await ask("v1/models", key, signal)).json();
  return data.map(({ id }) => id);
}

/** What is said of a model. */
export async function aboutOf(model, { key, signal }) {
  return (await ask(`v1/${encodeURIComponent(model)}`, key, signal)).json();
}

/**
 * The pictures of a plan: what paints its tiles on canvases, each pixel as the server drew it; the
 * file that has them all, if there is one; and the URLs.
 */
export async function draw(state, plan, about, { key, signal }) {
  const urls = plan.map((row) => urlOfRow(row, state, about));
  const answers = await Promise.all(urls.map((url) => ask(url, key, signal)));
  const files = await Promise.all(answers.map((answer) => answer.blob()));
  const bitmaps = await Promise.all(files.map(bitmapOf));
  const file = files.length === 1 ? files[0] : undefined;
  const film = state.view === "way" ? filmOf(state, about, "gif") : undefined;
  return { paint: (canvases) => paint(bitmaps, plan, canvases, about), file, urls, film };
}

/** The way from one seed to another, a file. */
export async function film(state, about, kind, { key }) {
  return (await ask(filmOf(state, about, kind), key)).blob();
}

async function ask(url, key, signal) {
  const headers = key ? { "x-api-key": key } : {};
  const answer = await fetch(url, { headers, signal }).catch((error) => {
    throw signal?.aborted ? error : new Refused(0, "The server cannot be reached.");
  });
  if (answer.ok) return answer;
  const { error } = await answer.json().catch(() => ({ error: answer.statusText }));
  throw new Refused(answer.status, error.message ?? error);
}

function urlOfRow({ columns, tiles }, state, about) {
  const { to, t, space } = state;
  if (state.view === "way") return urlOf(state, about, "image.png", { to, t, space });
  if (columns === undefined) return urlOf(state, about, "image.png");
  const truncation = tiles[0].truncation ?? state.truncation;
  return urlOf(state, about, "grid.png", { n: tiles.length, columns, truncation });
}

function filmOf(state, about, kind) {
  const { to, space } = state;
  const frames = Math.min(60, about.max_images);
  return urlOf(state, about, `interpolate.${kind}`, { to, space, frames, fps: 30 });
}

function urlOf(state, about, name, more) {
  const { seed, truncation, truncation_mode, bundle } = state;
  const label = labelOf(state, about);
  const given = { seed, label, truncation, truncation_mode, ...more, bundle };
  const parameters = Object.entries(given).filter(([, value]) => value !== undefined);
  return `v1/${about.model}/${name}?${new URLSearchParams(parameters)}`;
}

/** A class, or the mixture of two, as URLs have it. */
function labelOf({ label, blend, share }, { classes }) {
  if (!blend) return label;
  const plain = (name) => (/[,:]/.test(name) ? classes.indexOf(name) : name);
  return `${plain(label)}:${rest(share)},${plain(blend)}:${share}`;
}

const bitmapOf = (file) =>
  createImageBitmap(file, { premultiplyAlpha: "none", colorSpaceConversion: "none" });

function paint(bitmaps, plan, canvases, about) {
  const [width, height] = [widthOf(about), about.height];
  const left = [...canvases];
  for (const [i, { columns, tiles }] of plan.entries()) {
    const pitch = columns ? (bitmaps[i].width - GAP) / columns : width;
    const scale = columns ? (pitch - GAP) / width : 1;
    const start = columns ? GAP : 0;
    for (const tile of tiles.keys()) {
      const canvas = left.shift();
      [canvas.width, canvas.height] = [width, height];
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      const x = start + (tile % (columns ?? 1)) * pitch;
      const y = start + Math.floor(tile / (columns ?? 1)) * (height * scale + GAP);
      context.drawImage(bitmaps[i], x, y, width * scale, height * scale, 0, 0, width, height);
    }
    bitmaps[i].close();
  }
}
