// Does this browser draw what was exported? Its golden images, compared with the bundle's.

/**
 * How images differ from those expected, which are one array: pixels, how many differ, the largest
 * step, and whether that is within the bundle's limits, as ganinfer.bundle.golden has them.
 */
export function compared(images, expected, channels, limits) {
  let [different, values, steps, squares] = [0, 0, 0, 0];
  const size = images[0].length;
  for (let pixel = 0; pixel < expected.length; pixel += channels) {
    const [image, start] = [images[Math.floor(pixel / size)], pixel % size];
    let isOther = false;
    for (let k = 0; k < channels; k++) {
      const step = Math.abs(image[start + k] - expected[pixel + k]);
      if (step > 0) [isOther, values] = [true, values + 1];
      steps = Math.max(steps, step);
      squares += step * step;
    }
    different += isOther;
  }
  const count = expected.length;
  const psnr = 10 * Math.log10((255 ** 2 * count) / squares);
  const { max_steps: most, max_share: share, min_psnr_db: least } = limits;
  const isWithin =
    steps <= (most ?? 255) &&
    psnr >= (least ?? 0) &&
    values <= (share === null ? count : share * count + 3 * Math.sqrt(share * count) + 1);
  return { pixels: count / channels, different, steps, isWithin };
}

/** The same in words. */
export function told({ pixels, different, steps, isWithin }, provider) {
  const many = (number) => number.toLocaleString("en");
  const place = provider === "webgpu" ? "WebGPU" : "WebAssembly";
  const by = different ? `, by ${steps} of 255 at most` : "";
  const beyond = isWithin ? "" : ": more than the bundle allows, do not trust this page";
  return `Golden images drawn by ${place}: ${many(different)} of ${many(pixels)} pixels differ${by}${beyond}`;
}
