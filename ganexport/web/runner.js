// Asks the thread that runs graphs.

import { urlOf } from "./parts.js";
import { Refused } from "./pictures.js";

const thread = new Worker(urlOf("worker.js"));
const waiting = new Map();
let count = 0;

const call = (name, ...given) =>
  new Promise((done, fail) => {
    waiting.set(++count, { done, fail });
    thread.postMessage({ id: count, name, given });
  });

thread.onmessage = ({ data: { id, found, problem } }) => {
  const { done, fail } = waiting.get(id);
  waiting.delete(id);
  if (problem === undefined) done(found);
  else fail(new Refused(0, `This browser cannot draw here: ${problem}`));
};

export const start = (module, wasm) => call("start", module, wasm);
export const hasGpu = (precision) => call("hasGpu", precision);
export const open = (name, graph, provider) => call("open", name, graph, provider);

let last = Promise.resolve();
/** The numbers that a graph gives, one feed after the other; none that nobody waits for any more. */
export function run(name, feed, signal) {
  const mine = last.then(() => {
    signal?.throwIfAborted();
    return call("run", name, feed);
  });
  last = mine.catch(() => {});
  return mine;
}
