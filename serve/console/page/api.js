// Asking the server. The key lives in this module's memory alone: session or local storage would outlive the visit, and
// be read by whatever else is served from this origin later, such as another tunnel on the same port.

let key = "";

export const setKey = (text) => { key = text.trim(); };

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** GET where there is no body, else POST; raises Refused with the server's own words. */
export async function ask(path, body) {
  const headers = {};
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(`/v1/${path}`, {
      method: body === undefined ? "GET" : "POST",
      body: body === undefined ? undefined : JSON.stringify(body),
      headers, cache: "no-store", credentials: "omit", redirect: "error",
    });
  } catch {
    throw new Refused(0, "The server does not answer: it has stopped, or the tunnel is closed.");
  }
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, content.error?.message ?? `The server answered ${answer.status}.`);
  return content;
}
