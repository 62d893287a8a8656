// The thread beside the page that runs graphs in onnxruntime-web. Where a page is a file, browsers
// let such a thread import what it has made itself alone: so the runtime comes to it as bytes.

let ort;
const sessions = {};

const calls = {
  async start(module, wasm) {
    const url = URL.createObjectURL(new Blob([module], { type: "text/javascript" }));
    ort = await import(url);
    ort.env.wasm.wasmBinary = wasm;
    ort.env.wasm.numThreads = 1; // more need a server that isolates the page
  },

  /** Has the browser a GPU, and no program in its place, that computes in a precision? */
  async hasGpu(precision) {
    const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
    if (!adapter || adapter.info.isFallbackAdapter) return false;
    return precision !== "fp16" || adapter.features.has("shader-f16");
  },

  /** Open a graph under a name; provider: "wasm" or "webgpu". */
  async open(name, graph, provider) {
    await sessions[name]?.release();
    const options = { executionProviders: [provider], logSeverityLevel: 4 }; // what fails throws
    sessions[name] = await ort.InferenceSession.create(graph, options);
  },

  /** The numbers that a graph gives; feed: of each input its type, numbers and shape. */
  async run(name, feed) {
    const tensors = Object.entries(feed).map(([input, given]) => [input, new ort.Tensor(...given)]);
    const [output] = Object.values(await sessions[name].run(Object.fromEntries(tensors)));
    return output.getData();
  },
};

onmessage = async ({ data: { id, name, given } }) => {
  try {
    const found = await calls[name](...given);
    postMessage({ id, found });
  } catch (error) {
    postMessage({ id, problem: String(error?.message ?? error) });
  }
};
