// Programs that draw what the page shows.

import { rest, valuesOf } from "./pictures.js";

const text = JSON.stringify; // a literal of JSON is one of Python
const absolute = (url) => new URL(url, document.baseURI).href;

export function snippet(client, { state, plan, urls, film }, about, withKey) {
  const given = client === "curl" ? { urls, film } : state;
  return { curl, python, triton, openai }[client](given, about, plan, withKey);
}

function curl({ urls, film }, about, plan, withKey) {
  const { model } = about;
  const key = withKey ? ' -H "x-api-key: $GAN_API_KEY"' : "";
  const line = (url, file) => `curl -f${key} "${absolute(url)}" -o ${file}`;
  const nameOf = ({ truncation }) => (truncation === undefined ? model : `${model}-${truncation}`);
  const lines = plan.map(({ tiles }, i) => line(urls[i], `${nameOf(tiles[0])}.png`));
  if (film) lines.push(line(film, `${model}.gif`));
  return lines.join("\n");
}

function python(state, about, plan) {
  const { view, seed, to, t, label, blend, share, truncation, truncation_mode, space } = state;
  const mixture = () => `{${text(label)}: ${rest(share)}, ${text(blend)}: ${share}}`;
  const chosen = {
    [view === "way" ? "label" : "labels"]: blend ? mixture() : label && text(label),
    truncation,
    truncation_mode: truncation_mode && text(truncation_mode),
    space: space && text(space),
  };
  const given = Object.entries(chosen).filter(([, value]) => value !== undefined);
  const more = given.map(([name, value]) => `, ${name}=${value}`).join("");
  const n = plan[0].tiles.length;
  const call = {
    seeds: [`images = sampler.sample(${n}, seed=${seed}${more})`],
    way: [`images = sampler.interpolate(${seed}, ${to}, [${t}]${more})`],
    truncations: [
      "rows = [",
      `    sampler.sample(${n}, seed=${seed}${more}, truncation=value)`,
      `    for value in (${valuesOf(about).join(", ")})`,
      "]",
    ],
  }[view];
  return [
    "from ganinfer import Sampler",
    "",
    `with Sampler(${text(`${about.model}.gan`)}) as sampler:  # bundle ${state.bundle}`,
    ...call.map((line) => `    ${line}`),
  ].join("\n");
}

function triton(state, about, plan, withKey) {
  const { view, seed, label, blend, truncation, truncation_mode: mode } = state;
  if (view !== "seeds" || blend) {
    return "# The Open Inference Protocol draws seeds of one class and truncation: see curl.";
  }
  const n = plan[0].tiles.length;
  const ssl = location.protocol === "https:" ? ", ssl=True" : "";
  const key = withKey ? ', headers={"x-api-key": key}' : "";
  const parameters = mode ? `, parameters={"truncation_mode": ${text(mode)}}` : "";
  const input = (name, shape, type, array) => [
    `given.append(InferInput("${name}", [${shape}], "${type}"))`,
    `given[-1].set_data_from_numpy(${array})`,
  ];
  const seeds = `np.uint64(${seed}) + np.arange(${n}, dtype=np.uint64)`;
  const value = `np.array([${truncation}])`;
  const labels = `np.array([${text(label ?? "")}] * ${n}, np.object_)`;
  return [
    "import numpy as np",
    "from tritonclient.http import InferenceServerClient, InferInput",
    "",
    "given = []",
    ...input("seed", n, "UINT64", seeds),
    ...(label === undefined ? [] : input("label", n, "BYTES", labels)),
    ...(truncation === undefined ? [] : input("truncation", 1, "FP64", value)),
    `with InferenceServerClient(${text(location.host)}${ssl}) as client:`,
    `    answer = client.infer(${text(about.model)}, given${parameters}${key})`,
    '    images = answer.as_numpy("images")',
  ].join("\n");
}

function openai({ view, seed, label, blend, truncation }, about, plan, withKey) {
  if (view !== "seeds" || blend || truncation !== undefined) {
    return "# OpenAI's protocol draws seeds of one class, without truncation: see curl.";
  }
  const key = withKey ? "key" : text("none");
  return [
    "import openai",
    "",
    `with openai.OpenAI(base_url=${text(absolute("v1"))}, api_key=${key}) as client:`,
    "    answer = client.images.generate(",
    `        model=${text(about.model)},`,
    `        prompt=${text(label ?? "")},`,
    `        n=${plan[0].tiles.length},`,
    `        response_format="b64_json",`,
    `        extra_body={"seed": ${text(seed)}},`,
    "    )",
  ].join("\n");
}
