// Modules of a page in one file: each is a text in it, after those that it imports.
for (const text of document.querySelectorAll("script[type='text/plain']")) {
  const own = (_, name) => `from "${document.getElementById(name).dataset.url}"`;
  const source = text.textContent.replace(/from "\.\/([\w.]+)"/g, own);
  text.dataset.url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
}
import(document.getElementById("page.js").dataset.url);
