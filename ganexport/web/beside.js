// Parts of a page in a folder: files beside this one.

import { Refused } from "./pictures.js";

export const urlOf = (name) => new URL(name, import.meta.url);

export async function bytesOf(name) {
  const answer = await fetch(urlOf(name)).catch(() => ({ status: 0 }));
  if (!answer.ok) throw new Refused(answer.status, `${name} cannot be had. Is a server there?`);
  return answer.arrayBuffer();
}
