// The controls: what they say is the state of the page, and its link.

const SIZES = [1, 4, 9, 16, 25, 36, 64];
export const PIN = 12; // digits of a bundle's sha256

export const find = (id) => document.getElementById(id);
export const form = document.forms.controls;
export const fields = form.elements;

/** What is chosen: the controls that are enabled and not empty. */
export function stateOf() {
  return Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ""));
}

export const linkOf = (state) => `#${new URLSearchParams(state)}`;
export const linked = () => new URLSearchParams(location.hash.slice(1));

export function set(name, value) {
  const field = fields[name];
  if (!field) return;
  const isNew = field.options && ![...field.options].some((option) => option.value === value);
  if (isNew) field.add(new Option(value, value)); // the server says what is wrong with it
  field.value = value;
}

/** Take over a link; what it does not say is as in the beginning. */
export function adopt(params, about) {
  form.reset();
  set("bundle", about.bundle.slice(0, PIN));
  set("model", about.model);
  for (const [name, value] of params) if (value !== "") set(name, value);
  document.querySelectorAll(".pair").forEach(follow);
}

/** A slider follows its number, and has no value of its own. */
export function follow(pair) {
  const [slider, number] = pair.children;
  const isEmpty = number.value === "";
  slider.value = isEmpty ? slider.dataset.rest : number.value;
  pair.classList.toggle("resting", isEmpty);
}

/** Show the controls that the model and the view have. */
export function arrange(about) {
  const has = {
    classes: about.classes.length > 0,
    mixtures: about.mixtures,
    truncation: about.truncation_modes.length > 0,
    modes: about.truncation_modes.length > 1,
    styles: about.spaces.length > 1,
  };
  const view = fields.view.value;
  for (const part of document.querySelectorAll("[data-views], [data-needs]")) {
    const { views = view, needs } = part.dataset;
    part.hidden = !views.split(" ").includes(view) || (needs !== undefined && !has[needs]);
    part.disabled = part.hidden; // of a fieldset, with all that is in it
  }
  fields.blend.disabled = fields.label.value === "";
  find("shares").hidden = fields.blend.disabled || fields.blend.value === "";
  find("untruncate").disabled = fields.truncation.value === "";
}

/** Fill the controls for a model. */
export function introduce(about) {
  const { classes, default_truncation: trained, truncation_range: range, max_images: most } = about;
  const names = classes.map((name) => [name, name]);
  fill("label", [["", "Each seed's own"], ...names]);
  fill("blend", [["", "No other class"], ...names]);
  fill("truncation_mode", about.truncation_modes.map((mode, i) => [i ? mode : "", mode]));
  fill("n", SIZES.filter((n) => n <= most).map((n) => [n, n]), firstSize(about));
  const [least, largest] = range ?? [0.05, 2];
  const [slider, number] = find("truncation").parentElement.children;
  Object.assign(slider, { min: least, max: largest });
  slider.dataset.rest = Math.min(trained ?? 1, largest);
  number.placeholder = trained ?? "none";
  find("untruncated").textContent = trained ? `Trained with ${trained}` : "Trained without it";
}

export function fill(name, options, chosen) {
  const isChosen = (value) => String(value) === String(chosen);
  const made = options.map(([value, text]) => new Option(text, value, isChosen(value)));
  fields[name].replaceChildren(...made);
}

/** As many images as are there at once, and look well. */
function firstSize({ height, width, max_images: most }) {
  const pleasing = Math.max(height, width) < 64 ? 36 : 16;
  const isQuick = (n) => n <= Math.min(pleasing, most) && n * height * width <= 5e6;
  return Math.max(1, ...SIZES.filter(isQuick));
}
