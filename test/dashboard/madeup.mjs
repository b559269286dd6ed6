// The made-up shop as a page sees it, whose answers can be kept back.
import { order } from './eyes.mjs';
import { shop } from './shop.mjs';

export const live = `sk_live_${'x'.repeat(49)}`; // its key

/** madeUp lets a page see a shop that is made up. `first` may keep an answer back. */
export const madeUp = (page, options, first = () => {}) => page.route(/\/v1\//, async (route) => {
  const url = route.request().url();
  if (url.endsWith('/v1/events')) return route.continue({ headers: { ...route.request().headers(), authorization: `Bearer ${order.key}`, 'x-network': 'testnet' } });
  await first(url);
  return route.fulfill({ json: shop(url, options) ?? {} });
});

let kept; // what is kept back of the made-up shop's answers

/** keep keeps the next answer back of an address that has a word. `there` is when it is asked for; `go` lets it come, and waits for that. */
export function keep(page, word) {
  const it = kept = { word };
  it.there = new Promise((resolve) => { it.asked = resolve; });
  it.free = new Promise((resolve) => { it.release = resolve; });
  it.go = async () => {
    const came = page.waitForEvent('requestfinished', { predicate: (r) => r.url().includes(word) });
    it.release();
    await came;
    await page.evaluate(() => new Promise((resolve) => { requestAnimationFrame(() => requestAnimationFrame(resolve)); }));
  };
  return it;
}

/** keeping is the made-up shop for a page that asks only when it is told to, and from which answers can be kept. */
export async function keeping(page) {
  await page.addInitScript(() => { window.setInterval = () => 0; });
  await madeUp(page, { trouble: true }, async (url) => {
    const it = kept;
    if (!it || !url.includes(it.word)) return;
    kept = null;
    it.asked();
    await it.free;
  });
}

/** misfits are what of a value a schema does not know, or misses. */
export function misfits(value, schema, doc, at = '') {
  const known = schema?.$ref ? schema.$ref.slice(2).split('/').reduce((o, k) => o[k], doc) : schema;
  if (!known) return [`${at}: it is not described`];
  if (Array.isArray(value)) return value.flatMap((v, i) => misfits(v, known.items, doc, `${at}[${i}]`)).slice(0, 3);
  if (value === null) return [known.type].flat().includes('null') ? [] : [`${at}: it is never null`];
  if (typeof value !== 'object') return known.enum && !known.enum.includes(value) ? [`${at}: ${value} is none of ${known.enum}`] : [];
  return [
    ...Object.keys(value).flatMap((k) => misfits(value[k], known.properties?.[k], doc, `${at}.${k}`)),
    ...(known.required ?? []).filter((k) => !(k in value)).map((k) => `${at}.${k}: it is missing`),
  ];
}
