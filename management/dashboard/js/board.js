// Keeping what the board shows fresh: all of it is asked for and drawn, and what can't be had says so.

import { Refusal, get } from './api.js';
import { askHooks, askKeys, askPayments, askRefunds, askRevenue, windowOf } from './asking.js';
import { $, empty, h, put, ready } from './dom.js';
import { drawHooks, drawKeys, drawPayments, drawRefunds, drawStates, drawWallets, notice } from './drawing.js';
import { drawRevenue, fitChart } from './earned.js';
import { tick } from './format.js';
import { d, ended, reckon } from './known.js';
import { drawVerdict } from './verdict.js';

/** refresh asks for everything, once at a time; what can't be had keeps what was there. */
export async function refresh() {
  const mine = d;
  if (!mine) return;
  mine.asking ??= askAll(mine).finally(() => { mine.asking = null; });
  await mine.asking;
}

/** askAnew asks after a change: what is being asked for already may be from before it. */
export async function askAnew() {
  await d?.asking;
  await refresh();
}

/** lookBack shows the revenue of another range, of so many days. */
export function lookBack(days) {
  d.range = days;
  $('revenue').setAttribute('aria-busy', 'true');
  $('revenue').classList.add('stale');
  askAnew();
}

/** askAll asks for everything that is known by `mine`: somebody may sign out meanwhile. */
async function askAll(mine) {
  const now = new Date();
  const w = windowOf(mine.range, now);
  const offsetMinutes = -now.getTimezoneOffset();
  let unset = null; // why nobody knows what the shop is to be like
  try {
    mine.settings ??= await get('settings');
  } catch (e) {
    if (ended(e, mine)) return;
    unset = e;
  }
  if (mine !== d) return;
  reckon(mine.settings);
  const parts = [
    part('revenue', () => askRevenue(mine, w, { interval: w.interval, offsetMinutes }), drawRevenue),
    part('states', async () => { mine.states = await get('payments/states', { since: w.start.toISOString() }); }, drawStates),
    part('payments', () => askPayments(mine), drawPayments),
    part('refunds', () => askRefunds(mine), drawRefunds),
    part('wallets', async () => { mine.wallets = await get('wallets'); }, drawWallets),
    part('hooks', () => askHooks(mine), drawHooks),
    part('keys', () => askKeys(mine), drawKeys),
  ];
  const results = await Promise.all(parts);
  if (mine !== d) return;
  d.took = Date.now() - now; // a ledger that takes long to answer is asked less often
  const failures = [...results, unset].filter((r) => r && !r.denied);
  const down = failures.find((r) => r.temporary) ?? failures[0];
  if (down) d.trouble = down;
  else { d.trouble = null; d.asked = Date.now(); }
  notice(null);
  $('asked').textContent = d.asked ? `Up to date at ${new Date(d.asked).toLocaleTimeString()}` : 'Not known yet';
  drawVerdict();
  fitChart();
  tick();
}

/** part asks for a section and draws it. What it gives is why that did not work, if so. */
export async function part(id, askFor, draw) {
  const mine = d;
  try {
    await askFor();
    if (mine !== d) return null;
    $(id).classList.remove('stale', 'not-known');
    if (id === 'revenue') $('latency').classList.remove('stale');
    draw();
    d.known.add(id);
    ready(id);
    return null;
  } catch (err) {
    let e = err;
    if (!(e instanceof Refusal)) { // a fault of the page's own: the other sections go on
      console.error(err);
      e = new Refusal(-1, 'page', 'the page can’t show what it was told');
    }
    if (mine !== d || ended(e, mine)) return e;
    fail(id, e);
    return e;
  }
}

/** fail shows why a section has nothing to show. */
function fail(id, e) {
  ready(id);
  if (d.known.has(id)) {
    $(id).classList.add('stale');
    if (id === 'revenue') { // what is shown is of the range that was had
      $('latency').classList.add('stale');
      d.range = d.window.range;
      $('range').querySelector(`[value="${d.range}"]`).checked = true;
    }
    return;
  }
  $(id).classList.add('not-known');
  put(id === 'revenue' ? $('revenue-chart') : $(`${id}-body`), whyNot(id, e));
  const same = e.denied ? whyNot(id, e) : h('p', { class: 'unknown' }, 'Not known now'); // for what is made of the same
  if (id === 'revenue') { put($('latency-body'), same); ready('latency'); }
  if (id === 'payments' && d.feed.length === 0) { put($('feed-list'), h('li', { class: 'quiet-now' }, same)); ready('feed'); }
}

/** whyNot tells why a section has nothing to show. Where it may get better by itself, the verdict says why, once for all. */
function whyNot(id, e) {
  if (e.code === 'apikey.scope_insufficient') {
    const scope = { hooks: 'webhooks:manage', keys: 'keys:manage' }[id] ?? 'payments:read';
    return empty('Not for this key', `To see this, it needs the scope ${scope}.`);
  }
  if (e.denied) return empty('None here', 'This instance has none.');
  if (e.temporary) return h('p', { class: 'unknown' }, 'Not known now');
  return h('div', { class: 'broken' }, h('b', {}, 'This could not be asked for'), h('p', {}, `${e.message}.`), e.requestId && h('p', { class: 'sub' }, `Request ${e.requestId}`),
    h('button', { type: 'button', class: 'small', onclick: () => refresh() }, 'Ask again'));
}
