// The service as the page asks it: JSON and pictures, kept so that what was seen once is there at once.

const KEPT = 1500;
const kept = new Map();
let token = null;

export class Refused extends Error {
  constructor(status, type, text, again) {
    super(text);
    Object.assign(this, { status, type, again });
  }
}

export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) sessionStorage.setItem("token", given);
  token = sessionStorage.getItem("token");
}

export async function get(path) {
  return (await ask(path)).json();
}

export async function post(path, body) {
  return (await ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) })).json();
}

async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(token ? { authorization: `Bearer ${token}` } : {}) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Refused(0, "gone", "The service does not answer. Is it still running?", 2);
  }
  if (answer.ok) return answer;
  const error = (await answer.json().catch(() => ({}))).error ?? { type: "unknown", text: `The service answered ${answer.status}.` };
  throw new Refused(answer.status, error.type, error.text, Number(answer.headers.get("retry-after") ?? 0));
}

/** What `make` promises for this key, made once; `now` is its value as soon as it is there. What failed is forgotten. */
export function keep(key, make) {
  let entry = kept.get(key);
  if (entry) {
    kept.delete(key);
  } else {
    entry = { now: undefined };
    entry.promise = make().then(
      (value) => (entry.now = value),
      (error) => {
        kept.delete(key);
        throw error;
      },
    );
    entry.promise.catch(() => {});
  }
  kept.set(key, entry);
  while (kept.size > KEPT) {
    const [oldest, { now }] = kept.entries().next().value;
    now?.close?.();
    kept.delete(oldest);
  }
  return entry;
}

export const peek = (key) => kept.get(key)?.now;
export const put = (key, value) => kept.set(key, { now: value, promise: Promise.resolve(value) });

export const clip = (id) => keep(`clip ${id}`, () => get(`/api/clips/${encodeURIComponent(id)}`));
export const scene = (id, t0) => keep(`scene ${id} ${t0}`, () => get(`/api/clips/${encodeURIComponent(id)}/scene?t0_us=${t0}`));

export const pictureKey = (id, t0, camera) => `picture ${id} ${t0} ${camera}`;
export function picture(id, t0, camera, width) {
  return keep(pictureKey(id, t0, camera), async () => {
    const answer = await ask(`/api/clips/${encodeURIComponent(id)}/frames/${camera}?t0_us=${t0}&width=${width}`);
    return createImageBitmap(await answer.blob());
  });
}

export const planKey = (id, t0, options) => `plan ${id} ${t0} ${JSON.stringify(options)}`;
export function plan(id, t0, options) {
  return keep(planKey(id, t0, options), () => post("/api/plan", { clip_id: id, t0_us: t0, options, draw: true, engine: true }));
}

/** A stream of plans: `step` gives the reply for t0, the same that `plan` would give. */
export class Stream {
  constructor(options) {
    this.options = options;
    const query = token ? `?token=${encodeURIComponent(token)}` : "";
    this.socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/stream${query}`);
    this.waiting = [];
    this.socket.onmessage = (event) => this.waiting.shift()?.resolve(JSON.parse(event.data));
    this.socket.onclose = () => this.waiting.splice(0).forEach(({ reject }) => reject(new Refused(0, "gone", "The stream ended.", 0)));
    this.ready = new Promise((resolve, reject) => {
      this.socket.onopen = resolve;
      this.socket.onerror = () => reject(new Refused(0, "gone", "The service opens no stream.", 0));
    }).then(() => this.exchange({ options, draws: "kept", engine: true }));
    this.ready.catch(() => {});
  }

  async exchange(message) {
    const answer = new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
    this.socket.send(JSON.stringify(message));
    const value = await answer;
    if (value.error) throw new Refused(422, value.error.type, value.error.text, value.error.retry_after ?? 0);
    return value;
  }

  async step(id, t0) {
    await this.ready;
    const reply = await this.exchange({ clip_id: id, t0_us: t0, draw: true });
    put(planKey(id, t0, this.options), reply);
    return reply;
  }

  close() {
    this.socket.close();
  }
}

/** A drive in closed loop: `step` gives what is shown of a moment, its scene and pictures kept like any other's. */
export class Drive {
  constructor(begin) {
    this.options = begin.options;
    const query = token ? `?token=${encodeURIComponent(token)}` : "";
    this.socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/drive${query}`);
    this.socket.binaryType = "arraybuffer";
    this.come = [];
    this.socket.onmessage = (event) => {
      this.come.push(event.data);
      this.wake?.();
    };
    this.socket.onclose = () => {
      this.over = true;
      this.wake?.();
    };
    this.ready = new Promise((resolve) => (this.socket.onopen = resolve)).then(() => this.say(begin));
    this.ready.catch(() => {});
  }

  async next() {
    while (!this.come.length) {
      if (this.over) throw new Refused(0, "gone", "The drive ended.", 0);
      await new Promise((resolve) => (this.wake = resolve));
    }
    return this.come.shift();
  }

  async say(message) {
    this.socket.send(JSON.stringify(message));
    const value = JSON.parse(await this.next());
    if (value.error) throw new Refused(422, value.error.type, value.error.text, value.error.retry_after ?? 0);
    return value;
  }

  async step(reasoning) {
    await this.ready;
    const reply = await this.say({ reasoning: reasoning || null });
    const { clip_id: id, cameras } = reply.scene;
    for (const camera of cameras) {
      put(pictureKey(id, reply.t0_us, camera), await createImageBitmap(new Blob([await this.next()], { type: "image/jpeg" })));
    }
    put(`scene ${id} ${reply.t0_us}`, reply.scene);
    return reply;
  }

  close() {
    this.socket.close();
  }
}
