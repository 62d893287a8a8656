// Pixels from the page itself: the bundle's own graph, in onnxruntime-web.

import { compared, told } from "./golden.js";
import { between, endsOf, feedOf, inputsOf, latentOf, lerp, withStyles } from "./inputs.js";
import { bytesOf } from "./parts.js";
import { Refused, widthOf } from "./pictures.js";
import { hasGpu, open, run, start } from "./runner.js";

const MACS_AT_ONCE = 5e8; // of a batch, after which a newer wish is heard
const IMAGES_AT_ONCE = 64;

const page = JSON.parse(new TextDecoder().decode(await bytesOf("page.json")));
const { bundle, model, name } = page;
const { channels, resolution } = model;
const macs = model.macs ?? MACS_AT_ONCE; // older bundles do not say
const [height, width] = Array.isArray(resolution) ? resolution : [resolution, resolution];

export const CLIENTS = ["python"];
export const FAVOURITES = `ganpipe.favourites.${bundle}`;

export const models = async () => [name];

let opened; // what the golden images say, once they are drawn

/** What is known of the model, whose graph is open then. */
export async function aboutOf(asked) {
  if (asked !== name) throw new Refused(404, `model ${asked}: this page has another one, ${name}`);
  const { truncation_input: range } = model;
  return {
    model: name,
    bundle,
    height,
    width,
    channels,
    classes: model.classes,
    mixtures: model.class_input === "weights",
    truncation_modes: model.truncation_modes,
    truncation_range: range && [range.least, range.largest],
    default_truncation: model.default_truncation,
    spaces: model.style_input ? ["z", "w"] : ["z"],
    films: [],
    max_images: 64,
    proof: await (opened ??= begin()),
  };
}

/** What paints the tiles of a plan on canvases. */
export async function draw(state, plan, about, { signal }) {
  const { bundle: pin } = state;
  if (!bundle.startsWith(pin))
    throw new Refused(404, `bundle ${pin}: this page has another one, ${bundle.slice(0, 12)}`);
  const tiles = plan.flatMap((row) => row.tiles);
  const images =
    state.view === "way"
      ? await placeOn(state, signal)
      : await drawn(tiles.map((tile) => inputsOf(model, state, tile)), signal);
  return { paint: (canvases) => canvases.forEach((canvas, i) => put(images[i], canvas)) };
}

async function placeOn(state, signal) {
  const ends = endsOf(model, state);
  const t = Number(state.t);
  if (state.space !== "w") return drawn([between(ends, t, model)], signal);
  const styles = await run("mapping", feedOf(model, ends), signal);
  const half = styles.length / 2;
  const w = lerp(styles.subarray(0, half), styles.subarray(half), t);
  return cut(await run("generator", withStyles(model, feedOf(model, ends.slice(1)), w), signal));
}

/** Images uint8 (H, W, C), in batches. */
async function drawn(inputs, signal) {
  const atOnce = Math.max(1, Math.min(IMAGES_AT_ONCE, Math.floor(MACS_AT_ONCE / macs)));
  const images = [];
  for (let start = 0; start < inputs.length; start += atOnce) {
    const feed = feedOf(model, inputs.slice(start, start + atOnce));
    images.push(...cut(await run("generator", withStyles(model, feed), signal)));
  }
  return images;
}

function cut(images) {
  const size = height * width * channels;
  const count = images.length / size;
  return Array.from({ length: count }, (_, i) => images.subarray(i * size, (i + 1) * size));
}

/** An image on a canvas, pixel by pixel; two channels side by side. */
function put(image, canvas) {
  [canvas.width, canvas.height] = [widthOf({ channels, width }), height];
  const context = canvas.getContext("2d");
  const picture = context.createImageData(canvas.width, height);
  const planes = channels === 2 ? [[0, 0, 0], [1, 1, 1]] : [channels === 1 ? [0, 0, 0] : [0, 1, 2]];
  for (const [place, plane] of planes.entries())
    for (let pixel = 0; pixel < height * width; pixel++) {
      const [from, row] = [pixel * channels, Math.floor(pixel / width)];
      const to = 4 * (row * canvas.width + place * width + (pixel % width));
      plane.forEach((channel, k) => (picture.data[to + k] = image[from + channel]));
      picture.data[to + 3] = channels === 4 ? image[from + 3] : 255;
    }
  context.putImageData(picture, 0, 0);
}

// Opening: where the browser has a GPU and the page is for it, that; else, or if it draws anything
// else there, the processor.

async function begin() {
  const [module, wasm] = await Promise.all(["runtime.js", "runtime.wasm"].map(bytesOf));
  await start(module, wasm);
  if (page.webgpu && (await hasGpu(page.precision))) {
    const found = await tried("webgpu").catch(() => undefined);
    if (found?.isWithin) return told(found, "webgpu");
  }
  return told(await tried("wasm"), "wasm");
}

async function tried(provider) {
  await open("generator", await bytesOf("graph.onnx"), provider);
  if (model.style_input) await open("mapping", await bytesOf("mapping.onnx"), provider);
  const { seeds, labels, truncations, limits } = page.golden;
  const asked = (i) => ({ label: labels?.[i], truncation: truncations[i] });
  const images = await drawn(seeds.map((seed, i) => latentOf(model, seed, asked(i))));
  return compared(images, new Uint8Array(await bytesOf("golden")), channels, limits);
}
