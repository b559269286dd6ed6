// The management API, and its feed of events.

const base = new URL('v1/', document.baseURI);
const slot = 'x402.key';

/** Refusal is an answer that is an error, or none at all (status 0). */
export class Refusal extends Error {
  constructor(status, code, message, requestId, retryAfter) {
    super(message);
    Object.assign(this, { status, code, requestId, retryAfter });
  }

  /** temporary: it may go better by itself. */
  get temporary() { return this.status === 0 || this.status === 429 || this.status >= 500; }

  /** denied: this key may not know it, or there is nothing to know. */
  get denied() { return this.code === 'apikey.scope_insufficient' || this.code === 'webhook.off' || this.status === 404 && this.code !== 'unknown'; }
}

export const key = {
  get: () => sessionStorage.getItem(slot) ?? '',
  set: (secret) => sessionStorage.setItem(slot, secret),
  forget: () => sessionStorage.removeItem(slot),
};

export const isKey = (text) => /^sk_(test|live)_[\w-]{20,}$/.test(text);

/** networkOf is the X-Network that a key is for. */
export const networkOf = (secret) => (secret.startsWith('sk_live_') ? 'mainnet' : 'testnet');

function headers(more) {
  const secret = key.get();
  return { Authorization: `Bearer ${secret}`, 'X-Network': networkOf(secret), ...more };
}

const patience = 20_000;

/** get asks for something. Queries that are empty are left out. */
export function get(path, query = {}) {
  const url = new URL(path, base);
  for (const [name, value] of Object.entries(query)) if (value !== '' && value !== undefined && value !== null) url.searchParams.set(name, value);
  return ask(url, { headers: headers() });
}

/** post changes something, once, however often it is sent under the same id. */
export function post(path, id, body) {
  const more = { 'Idempotency-Key': id };
  if (body !== undefined) more['Content-Type'] = 'application/json';
  return ask(new URL(path, base), { method: 'POST', headers: headers(more), body: body === undefined ? undefined : JSON.stringify(body) });
}

/** newID is an Idempotency-Key. crypto.randomUUID is there on https alone. */
export function newID() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, '0')).join('');
}

async function ask(url, init) {
  let answer;
  try {
    answer = await fetch(url, { ...init, credentials: 'omit', cache: 'no-store', signal: AbortSignal.timeout(patience) });
  } catch (e) {
    throw new Refusal(0, 'unreachable', e.name === 'TimeoutError' ? 'there was no answer in time' : 'the server can’t be reached');
  }
  if (answer.status === 204) return null;
  let body = null;
  try {
    body = await answer.json();
  } catch { /* told below */ }
  if (!answer.ok || body === null) throw refusal(answer, body);
  return body;
}

function refusal(answer, body) {
  const e = body?.error ?? {};
  const wait = Number(answer.headers.get('Retry-After')) || 0;
  return new Refusal(answer.status, e.code ?? 'unknown', e.message ?? `the server answered ${answer.status}`, e.requestId ?? answer.headers.get('X-Request-Id'), wait);
}

const silence = 40_000; // the server sends something every 15 s
const longestWait = 30_000;

/** Feed listens to events until stop. Headers can't be given to an EventSource, and a key must not be in an address: so it is read here. */
export class Feed {
  constructor({ event, state }) {
    Object.assign(this, { event, state, last: '', tries: 0, stopped: false });
  }

  start() {
    this.stopped = false;
    this.run();
  }

  stop() {
    this.stopped = true;
    this.last = ''; // who comes next may not be told what this one has missed
    this.abort?.abort();
    clearTimeout(this.timer);
  }

  async run() {
    if (this.stopped) return;
    this.abort = new AbortController();
    const abort = this.abort;
    try {
      const answer = await fetch(new URL('events', base), {
        headers: headers({ Accept: 'text/event-stream', ...(this.last && { 'Last-Event-ID': this.last }) }),
        credentials: 'omit', cache: 'no-store', signal: abort.signal,
      });
      if (!answer.ok) {
        if (answer.status === 401 || answer.status === 403 || answer.status === 404) {
          this.state('off');
          return;
        }
        throw new Error(`answered ${answer.status}`);
      }
      await this.read(answer.body.pipeThrough(new TextDecoderStream()).getReader(), abort);
    } catch { /* it comes back */ }
    if (this.stopped) return;
    this.state('away');
    const wait = Math.min(longestWait, 1000 * 2 ** this.tries++) * (0.75 + Math.random() / 2);
    this.timer = setTimeout(() => this.run(), wait);
  }

  async read(reader, abort) {
    let rest = '';
    for (;;) {
      const quiet = setTimeout(() => abort.abort(), silence);
      const { done, value } = await reader.read().finally(() => clearTimeout(quiet));
      if (done) return;
      const blocks = (rest + value).split('\n\n');
      rest = blocks.pop();
      blocks.forEach((b) => this.hear(b));
    }
  }

  hear(block) {
    this.tries = 0;
    this.state('on');
    const field = (name) => block.split('\n').filter((l) => l.startsWith(`${name}: `)).map((l) => l.slice(name.length + 2)).join('\n');
    const id = field('id');
    if (id) this.last = id;
    const type = field('event');
    if (!type || type === 'hello') return;
    try {
      this.event(type, JSON.parse(field('data')));
    } catch { /* one that can't be read is not shown */ }
  }
}
