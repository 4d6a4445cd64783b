// The server's API: answers, streams of events, and errors in words for people.

const NAMES = { api: "ingle.api-key", admin: "ingle.admin-key" };

export class ApiError extends Error {
  constructor(message, status, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** `kind` is "api" or "admin". Empty where there is none. */
export function keyOf(kind) {
  return localStorage.getItem(NAMES[kind]) ?? "";
}

export function keepKey(kind, key) {
  if (key) localStorage.setItem(NAMES[kind], key);
  else localStorage.removeItem(NAMES[kind]);
}

/** The header that carries a key. Who has one key only may mean it for both. */
export function bearer(kind) {
  const key = keyOf(kind) || keyOf("api");
  return key ? { authorization: `Bearer ${key}` } : {};
}

/** The JSON of an answer. Throws ApiError; TypeError where no server answers. */
export async function ask(method, path, body, { signal } = {}) {
  const response = await send(method, path, body, signal);
  return response.json();
}

/** Each event of a stream. Throws ApiError, also for a stream that ends before it is done. */
export async function* events(path, body, { signal } = {}) {
  const response = await send("POST", path, body, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new ApiError("The answer was cut short.", 0, "cut_short");
    text += value;
    const frames = text.split("\n\n");
    text = frames.pop();
    for (const frame of frames) {
      if (!frame.startsWith("data: ")) continue;
      if (frame === "data: [DONE]") return;
      const event = JSON.parse(frame.slice(6));
      if (event.error) throw new ApiError(event.error.message, 200, event.error.code);
      yield event;
    }
  }
}

async function send(method, path, body, signal) {
  const headers = bearer(path.startsWith("/admin/") ? "admin" : "api");
  if (body !== undefined) headers["content-type"] = "application/json";
  const response = await fetch(path, {
    method,
    headers,
    signal,
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const text = await response.text();
  try {
    const { message, code } = JSON.parse(text).error;
    return new ApiError(message, response.status, code);
  } catch {
    return new ApiError(`The server answers with status ${response.status}.`, response.status, "");
  }
}
