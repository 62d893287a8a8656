// Parts of a page in one file: modules, of which the loader made URLs, and packed bytes.

export const urlOf = (name) => document.getElementById(name).dataset.url;

export async function bytesOf(name) {
  const text = atob(document.getElementById(name).textContent);
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(unpacked).arrayBuffer();
}
