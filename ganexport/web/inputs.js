// What the graph takes for a state of the page: latents, classes, truncations, places on a way.

import { draw } from "./draw.mjs";
import { Refused, rest } from "./pictures.js";

/** What a tile's image is made of: { z, y, psi }, as draw.mjs gives it. */
export function inputsOf(model, state, { seed, truncation }) {
  return latentOf(model, seed, { label: labelOf(model, state), ...truncationOf(state, truncation) });
}

/** The ends of a way; both have the class of the first. */
export function endsOf(model, state) {
  const start = inputsOf(model, state, state);
  return [start, latentOf(model, state.to, { label: start.label, ...truncationOf(state) })];
}

/** Where a way is at t, 0 to 1: normal latents go along the sphere, others straight. */
export function between([start, end], t, model) {
  const mixed = model.z_distribution === "normal" ? slerp : lerp;
  return { ...start, z: mixed(start.z, end.z, t) };
}

export const lerp = (a, b, t) => a.map((value, i) => (1 - t) * value + t * b[i]);

function slerp(a, b, t) {
  const dot = (x, y) => x.reduce((total, value, i) => total + value * y[i], 0);
  const cosine = dot(a, b) / (Math.sqrt(dot(a, a)) * Math.sqrt(dot(b, b)));
  const angle = Math.acos(Math.max(-1, Math.min(1, cosine)));
  if (Math.sin(angle) < 1e-6) return lerp(a, b, t); // parallel: the arc is the line
  const [of_a, of_b] = [Math.sin((1 - t) * angle), Math.sin(t * angle)];
  return a.map((value, i) => (of_a * value + of_b * b[i]) / Math.sin(angle));
}

/** The same of a label and a truncation. */
export function latentOf(model, seed, asked) {
  if (!/^\d{1,20}$/.test(seed)) throw new Refused(0, `seed: found '${seed}'; expected a number`);
  try {
    return draw(model, String(seed), asked);
  } catch (error) {
    throw new Refused(0, error.message);
  }
}

function truncationOf({ truncation, truncation_mode: mode }, ofRow) {
  const asked = ofRow ?? truncation;
  return asked === undefined ? {} : { truncation: Number(asked), mode };
}

/** A class's number, or the weights of two; undefined for the seed's own. */
function labelOf({ classes }, { label, blend, share }) {
  if (label === undefined) return undefined;
  const [first, second] = [label, blend].map((name) => classes.indexOf(name));
  if (first < 0) throw new Refused(0, `label ${label}: there is no such class`);
  if (blend === undefined) return first;
  if (second < 0) throw new Refused(0, `label ${blend}: there is no such class`);
  const weights = new Float32Array(classes.length);
  weights[first] += rest(share);
  weights[second] += Number(share);
  return weights;
}

/** One batch: of each input of a graph its type, numbers and shape. */
export function feedOf(model, images) {
  const n = images.length;
  const feed = { z: floats(images.map(({ z }) => z), [n, model.z_dim]) };
  const { classes, class_input: kind, truncation_input: psi } = model;
  if (kind === "weights") feed.y = floats(images.map(({ y }) => y), [n, classes.length]);
  else if (classes.length) feed.y = ["int64", BigInt64Array.from(images, ({ y }) => BigInt(y)), [n]];
  if (psi) feed.truncation = ["float32", Float32Array.from(images, (image) => image.psi), [n]];
  return feed;
}

/** The same with the styles that a StyleGAN's graph takes as well, or with none. */
export function withStyles(model, feed, styles) {
  if (!model.style_input) return feed;
  const { num_styles: count, w_dim: length } = model.style_input;
  const [n] = feed.z[2];
  const w = styles ?? new Float32Array(n * count * length);
  const takes = new Float32Array(n).fill(styles ? 1 : 0);
  return { ...feed, w: ["float32", w, [n, count, length]], takes_w: ["float32", takes, [n]] };
}

function floats(rows, shape) {
  const all = new Float32Array(shape.reduce((a, b) => a * b));
  let start = 0;
  for (const row of rows) {
    all.set(row, start);
    start += row.length;
  }
  return ["float32", all, shape];
}
