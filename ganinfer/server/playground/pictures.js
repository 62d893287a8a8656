// Which tiles show a state of the page, and how they become one sheet.

const TRUNCATIONS = [0.2, 0.4, 0.6, 0.8, 1];
const SEEDS_OF_A_ROW = 5;
const LAST_SEED = 2n ** 64n - 1n;

/** What cannot be shown, in words for whoever asked; status: as HTTP has it. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * The rows that show a state: of each its columns if it is a grid, and its tiles. A tile has its
 * seed, and its truncation if its row has one of its own.
 */
export function planOf(state, about) {
  const tiles = (n, truncation) =>
    Array.from({ length: n }, (_, i) => ({ seed: seedAfter(state.seed, BigInt(i)), truncation }));
  if (state.view === "way") return [{ tiles: tiles(1) }];
  if (state.view === "truncations") {
    const n = Math.min(SEEDS_OF_A_ROW, about.max_images);
    return valuesOf(about).map((truncation) => ({ columns: n, tiles: tiles(n, truncation) }));
  }
  const n = Number(state.n);
  if (n === 1 && about.channels !== 2) return [{ tiles: tiles(1) }];
  const columns = Math.ceil(Math.sqrt((n * about.height) / widthOf(about)));
  return [{ columns: Math.min(n, columns), tiles: tiles(n) }];
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
