// Which URLs show a state of the page, and how their pictures become tiles.

const TRUNCATIONS = [0.2, 0.4, 0.6, 0.8, 1];
const SEEDS_OF_A_ROW = 5;
const GAP = 2; // white pixels between the tiles of a grid
const LAST_SEED = 2n ** 64n - 1n;

/** What the server refused, in its words. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function ask(url, key, signal) {
  const headers = key ? { "x-api-key": key } : {};
  const answer = await fetch(url, { headers, signal }).catch((error) => {
    throw signal?.aborted ? error : new Refused(0, "The server cannot be reached.");
  });
  if (answer.ok) return answer;
  const { error } = await answer.json().catch(() => ({ error: answer.statusText }));
  throw new Refused(answer.status, error.message ?? error);
}

/**
 * The pictures that show a state: of each its URL, its columns if it is a grid, and its tiles.
 * A tile has its seed, and its truncation if its row has one of its own.
 */
export function planOf(state, about) {
  const url = (name, more) => urlOf(state, about, name, more);
  const tiles = (n, truncation) =>
    Array.from({ length: n }, (_, i) => ({ seed: seedAfter(state.seed, BigInt(i)), truncation }));
  const row = (n, columns, truncation) => ({
    url: url("grid.png", { n, columns, truncation: truncation ?? state.truncation }),
    columns,
    tiles: tiles(n, truncation),
  });
  if (state.view === "way") {
    const { to, t, space } = state;
    return [{ url: url("image.png", { to, t, space }), tiles: tiles(1) }];
  }
  if (state.view === "truncations") {
    const n = Math.min(SEEDS_OF_A_ROW, about.max_images);
    return valuesOf(about).map((truncation) => row(n, n, truncation));
  }
  const n = Number(state.n);
  if (n === 1 && about.channels !== 2) return [{ url: url("image.png"), tiles: tiles(1) }];
  const columns = Math.ceil(Math.sqrt((n * about.height) / widthOf(about)));
  return [row(n, Math.min(n, columns))];
}

export function filmOf(state, about, kind) {
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

/** The share of the first class. */
export const rest = (share) => Number((1 - share).toFixed(6));

/** Of a tile: two channels lie side by side. */
export const widthOf = ({ channels, width }) => (channels === 2 ? 2 * width : width);

/** The truncations that rows show. */
export function valuesOf({ truncation_range: range }) {
  return TRUNCATIONS.filter((value) => !range || (range[0] <= value && value <= range[1]));
}

/** A seed some steps on; what is no seed stays as it is, for the server to say so. */
export function seedAfter(seed, steps) {
  if (!/^\d{1,20}$/.test(seed)) return seed;
  const found = BigInt(seed) + steps;
  return String(found < 0n ? 0n : found > LAST_SEED ? LAST_SEED : found);
}

/** Paint the tiles of all pictures on canvases, each pixel as the server drew it. */
export function paint(bitmaps, plan, canvases, about) {
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

/** All tiles on one canvas, whose longer side is about so long; else as they are. */
export function sheetOf(canvases, columns, longer) {
  const { width, height } = canvases[0];
  const rows = Math.ceil(canvases.length / columns);
  const fitting = longer ? longer / Math.max(columns * width, rows * height) : 1;
  const scale = fitting < 1 ? fitting : Math.floor(fitting);
  const sheet = document.createElement("canvas");
  sheet.width = Math.ceil(columns * width * scale);
  sheet.height = Math.ceil(rows * height * scale);
  const context = sheet.getContext("2d");
  context.imageSmoothingEnabled = scale < 1;
  context.scale(scale, scale);
  canvases.forEach((canvas, i) => {
    context.drawImage(canvas, (i % columns) * width, Math.floor(i / columns) * height);
  });
  return sheet;
}
