// The draw in JavaScript, bit for bit that of ganinfer; docs/draw.md says it in words.
const CENTRAL = [[2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
    13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608],
  [5226.495278852545925, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
    5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1]];
const TAIL = [[7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
    3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734],
  [1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
    0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1]];
const ARTANH = [21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1].map((k) => 1 / k);

/** The high 32 bits of a product of two words, by halves of one: no step needs more than 49 bits. */
const high = (a, b) => Math.floor(((a >>> 16) * b + Math.floor(((a & 0xffff) * b) / 65536)) / 65536);

/** Four words of a seed's stream (Philox4x32-10). */
export function philox(seed, block, stream) {
  let c0 = block, c1 = 0, c2 = stream, c3 = 0, k0 = Number(seed & 0xffffffffn), k1 = Number(seed >> 32n);
  for (let round = 0; round < 10; round++) {
    const high0 = high(0xd2511f53, c0), high2 = high(0xcd9e8d57, c2), low0 = Math.imul(0xd2511f53, c0);
    c0 = (high2 ^ c1 ^ k0) >>> 0, c1 = Math.imul(0xcd9e8d57, c2) >>> 0;
    c2 = (high0 ^ c3 ^ k1) >>> 0, c3 = low0 >>> 0;
    k0 = (k0 + 0x9e3779b9) >>> 0, k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [c0, c1, c2, c3];
}

const horner = (coefficients, x) => coefficients.reduce((total, c) => total * x + c);

function log(x) {
  let exponent = 0;
  for (; x < 0.7071067811865476; x *= 2) exponent--;
  const s = (x - 1) / (x + 1);
  return 2 * s * horner(ARTANH, s * s) + exponent * 0.6931471805599453;
}

function quantile(q) {
  const tail = Math.abs(q) > 0.425;
  const x = tail ? Math.sqrt(-log(0.5 - Math.abs(q))) - 1.6 : 0.180625 - q * q;
  const [top, bottom] = (tail ? TAIL : CENTRAL).map((coefficients) => horner(coefficients, x));
  return (top / bottom) * (tail ? Math.sign(q) : q);
}

/** erf(t / sqrt 2), the nearest double: its series in integers, whose unit is 2**-200. */
export function mass(t) {
  if (t >= 8) return 1;
  const x = BigInt(Math.floor(t * 2 ** 200)), square = (x * x) >> 200n;
  let total = x;
  for (let n = 1n, term = x; term; n++)
    total += (term = -((term * square) >> 200n) / (2n * n)) / (2n * n + 1n);
  return Number((total * 0xcc42299ea1b284687e59e2805d5c717fa7053e60a24e0db181n) >> 200n) * 2 ** -200;
}

/**
 * What a bundle's graph takes for a seed: z, a Float32Array; y, its class or weights of classes; psi,
 * its truncation; and label, what was drawn or asked for. model: "model" of manifest.json. seed: a
 * BigInt, a safe integer or its digits. label: a class from 0 on, or weights; else the seed's own.
 */
export function draw(model, seed, { label, truncation, mode = model.truncation_modes[0] } = {}) {
  const key = BigInt(seed), count = model.classes.length, asked = truncation ?? null;
  const { least, largest, untruncated } = model.truncation_input ?? { least: 1e-30, largest: 1e30 };
  if (key !== BigInt.asUintN(64, key) || (typeof seed === "number" && !Number.isSafeInteger(seed)))
    throw new RangeError(`seed ${seed}: expected 0 to 2**64 - 1, beyond 2**53 as a BigInt or digits`);
  if (asked !== null && !(model.truncation_modes.includes(mode) && asked >= least && asked <= largest))
    throw new RangeError(`truncation ${asked}, mode ${mode}: this model has no such`);
  const scales = asked !== null && mode === "scale", cuts = asked !== null && mode === "resample";
  const t = cuts ? asked : scales ? 8 : model.default_truncation ?? 8; // 8 is beyond all latents
  const share = mass(t), limit = Math.fround(t), z = new Float32Array(model.z_dim);
  for (let i = 0, words; i < z.length; i++) {
    if (i % 4 === 0) words = philox(key, i / 4, 0);
    const centred = (words[i % 4] - 2147483647.5) * 2 ** -32;
    const exact = model.z_distribution === "uniform" ? 2 * centred : quantile(centred * share);
    z[i] = Math.max(-limit, Math.min(limit, Math.fround(exact))) * (scales ? Math.fround(asked) : 1);
  }
  const own = () => Number((BigInt(philox(key, 0, 1)[0]) * BigInt(count)) >> 32n);
  const chosen = count ? label ?? own() : undefined;
  const spread = model.class_input === "weights" && !chosen.length;
  const y = spread ? Float32Array.from(model.classes, (_, k) => Number(k === chosen)) : chosen;
  return { z, y, psi: model.truncation_input && Math.fround(asked ?? untruncated), label: chosen };
}
