// The dashboard: signing in, asking, and keeping what is shown fresh.

import { Feed, Refusal, get, isKey, key, networkOf, newID, post } from './api.js';
import { $, empty, h, put, ready, say, skeleton } from './dom.js';
import { revenueChart, revenueTable } from './charts.js';
import { Coins, Purse, ago, capital, count, money, paid, plural, price, stateName, states, tick } from './format.js';
import { needs } from './needs.js';
import { eventWords, feedItem, hooksSection, keysSection, latencySection, paymentsTable, refundsSection, sheetBody, statesSection, walletsSection, what } from './sections.js';

const every = 30_000; // how often everything is asked for again, seen or not by the feed
const gather = 10_000; // how long events are gathered before their effect is asked for
const keptEvents = 40;

let d; // what is known
let coins = new Coins();
let timers = [];
let asking = null;

const fresh = () => ({ range: 7, feed: [], payments: { data: [], page: {} }, filter: { state: '', text: '' }, known: new Set(), trouble: null, asked: 0, took: 0 });

/* Signing in and out */

const feed = new Feed({ event: heard, state: pulse });

async function signIn(secret) {
  const button = $('sign-in-button');
  button.disabled = true;
  button.setAttribute('aria-busy', 'true');
  $('key-error').textContent = '';
  key.set(secret);
  try {
    await begin();
  } catch (e) {
    key.forget();
    show('sign-in');
    $('key-error').textContent = wrongKey(e);
    $('key').setAttribute('aria-invalid', 'true');
    $('key').focus();
  } finally {
    button.disabled = false;
    button.removeAttribute('aria-busy');
  }
}

function wrongKey(e) {
  const words = {
    'apikey.invalid': 'There is no such key. Check that all of it was copied.', 'apikey.expired': 'This key has expired. Make another, or rotate in time next time.',
    'apikey.revoked': 'This key was revoked.', network_locked: 'This key is for the other network: here only one of mainnet and testnet is served.',
    unreachable: 'The server can’t be reached. Is the address right, and Caddy running?', 'internal.unavailable': 'The ledger can’t be reached now. Try again in a moment.',
  };
  return words[e.code] ?? `That did not work: ${e.message}`;
}

function signOut(why) {
  key.forget();
  feed.stop();
  pulse('off');
  timers.forEach(clearInterval);
  timers = [];
  d = undefined;
  for (const id of ['sheet', 'ask']) if ($(id).open) $(id).close();
  $('sheet-body').replaceChildren();
  show('sign-in');
  notice(null);
  $('key').value = '';
  $('key-error').textContent = why ?? '';
  $('key').focus();
}

function show(view) {
  document.body.dataset.view = view;
  $('sign-in').hidden = view !== 'sign-in';
  $('board').hidden = view !== 'board';
}

/** begin asks who we are, which also says whether the key is good, and shows the board. */
async function begin() {
  const me = await get('api-keys/current');
  d = { ...fresh(), me };
  const live = networkOf(key.get()) === 'mainnet';
  $('mode').textContent = live ? 'Mainnet' : 'Testnet';
  $('mode').title = live ? 'Real money' : 'Money of a test network, which is worth nothing';
  $('mode').className = `badge ${live ? 'live' : 'test'}`;
  $('mode').hidden = false;
  $('host').textContent = location.hostname;
  document.title = `${location.hostname} · x402 dashboard`;
  $('key').removeAttribute('aria-invalid');
  $('key').value = '';
  notice(null);
  show('board');
  loading();
  $('main').focus();
  feed.start();
  timers = [setInterval(() => tick(), 5000), setInterval(() => { if (!document.hidden) refresh(); }, every)];
  await refresh();
}

function loading() {
  for (const id of ['states', 'latency', 'refunds', 'payments', 'wallets', 'hooks', 'keys']) put($(`${id}-body`), skeleton(id === 'payments' ? 6 : 3));
  for (const id of ['revenue', 'states', 'latency', 'refunds', 'payments', 'wallets', 'hooks', 'keys', 'feed', 'verdict']) $(id).setAttribute('aria-busy', 'true');
  put($('revenue-chart'), skeleton(5));
  put($('feed-list'), h('li', { class: 'quiet-now' }, skeleton(4)));
  $('earned').textContent = '';
  $('earned-change').textContent = '';
  put($('facts'));
  for (const id of ['revenue', 'latency', 'states', 'refunds', 'payments', 'wallets', 'hooks', 'keys']) $(id).classList.remove('stale', 'nothing', 'calm', 'not-known');
  for (const id of ['states-sub', 'latency-sub', 'keys-sub']) $(id).textContent = '';
}

const may = (scope) => d?.me.scopes.includes(scope);

/* Asking */

/** windowOf is the time that is shown, and the one before it that it is compared with. */
function windowOf(range, now) {
  const start = new Date(now);
  if (range <= 7) {
    start.setMinutes(0, 0, 0);
    start.setHours(start.getHours() - range * 24 + 1);
    return { range, interval: 'hour', buckets: range * 24, start, before: new Date(start - range * 86_400_000) };
  }
  start.setHours(0, 0, 0, 0);
  start.setDate(start.getDate() - range + 1);
  return { range, interval: 'day', buckets: range, start, before: new Date(start - range * 86_400_000) };
}

/** refresh asks for everything, once at a time; what can't be had keeps what was there. */
function refresh() {
  asking ??= askAll().finally(() => { asking = null; });
  return asking;
}

async function askAll() {
  const mine = d; // somebody may sign out meanwhile
  const now = new Date();
  const w = windowOf(mine.range, now);
  const offsetMinutes = -now.getTimezoneOffset();
  try {
    mine.settings ??= await get('settings');
  } catch (e) { // everything else says so, too
    if (ended(e)) return;
  }
  if (mine !== d) return;
  coins = new Coins(mine.settings);
  const parts = [
    part('revenue', () => askRevenue(mine, w, { interval: w.interval, offsetMinutes }), drawRevenue),
    part('states', async () => { mine.states = await get('payments/states', { since: w.start.toISOString() }); }, drawStates),
    part('payments', () => askPayments(mine), drawPayments),
    part('refunds', async () => {
      [mine.failed, mine.plan, mine.settling] = await Promise.all([get('refunds', { status: 'failed', limit: 50 }), get('refunds/plan'), get('payments', { state: 'SETTLING', limit: 100 })]);
    }, drawRefunds),
    part('wallets', async () => { mine.wallets = await get('wallets'); }, drawWallets),
    part('hooks', () => askHooks(mine), () => put($('hooks-body'), hooksSection(d.hooks, { redeliver, test: testHook, may: may('webhooks:manage') }))),
    part('keys', async () => { [mine.keys, mine.usage] = await Promise.all([get('api-keys', { limit: 100 }), get('api-keys/usage', { windowDays: 7 })]); }, drawKeys),
  ];
  const results = await Promise.all(parts);
  if (mine !== d) return;
  const failures = results.filter((r) => r instanceof Refusal);
  d.took = Date.now() - now; // a ledger that takes long to answer is asked less often
  const down = failures.find((r) => r.temporary);
  if (down) d.trouble = down;
  else { d.trouble = null; d.asked = Date.now(); }
  notice(null);
  $('asked').textContent = d.asked ? `Up to date at ${new Date(d.asked).toLocaleTimeString()}` : 'Not known yet';
  drawVerdict();
  fitChart();
  tick();
}

/** part asks for a section and draws it. What it gives is why that did not work, if so. */
async function part(id, askFor, draw) {
  const mine = d;
  try {
    await askFor();
    if (mine !== d) return null;
    d.known.add(id);
    $(id).classList.remove('stale', 'not-known');
    if (id === 'revenue') $('latency').classList.remove('stale');
    draw();
    ready(id);
    return null;
  } catch (err) {
    let e = err;
    if (!(e instanceof Refusal)) { // a fault of the page's own: the other sections go on
      console.error(err);
      e = new Refusal(-1, 'page', 'the page can’t show what it was told');
    }
    if (mine !== d || ended(e)) return e;
    fail(id, e);
    return e;
  }
}

/** ended reports whether the key is of no use any more, and says so. */
function ended(e) {
  if (e.status !== 401) return false;
  if (d) signOut(`You were signed out. ${wrongKey(e)}`);
  return true;
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
  const body = id === 'revenue' ? $('revenue-chart') : $(`${id}-body`);
  $(id).classList.add('not-known');
  if (e.code === 'apikey.scope_insufficient') {
    const scope = { hooks: 'webhooks:manage', keys: 'keys:manage' }[id] ?? 'payments:read';
    put(body, empty('Not for this key', `To see this, it needs the scope ${scope}.`));
  } else if (e.status === 404 || e.code === 'webhook.off') {
    put(body, empty('None here', 'This instance has none.'));
  } else if (e.temporary) { // the verdict says why, once for all
    put(body, h('p', { class: 'unknown' }, 'Not known now'));
  } else {
    put(body, h('div', { class: 'broken' }, h('b', {}, 'This could not be asked for'), h('p', {}, `${e.message}.`), e.requestId && h('p', { class: 'sub' }, `Request ${e.requestId}`),
      h('button', { type: 'button', class: 'small', onclick: () => refresh() }, 'Ask again')));
  }
  if (id === 'revenue') { put($('latency-body'), h('p', { class: 'unknown' }, 'Not known now')); ready('latency'); }
  if (id === 'payments' && d.feed.length === 0) { put($('feed-list'), h('li', { class: 'quiet-now unknown' }, 'Not known now')); ready('feed'); }
}

/** askRevenue asks for the window that is shown, and once for the one before it, which does not change any more but for what goes back of it. */
async function askRevenue(mine, w, query) {
  const id = `${w.before.getTime()} ${w.interval}`;
  const [now, before] = await Promise.all([
    get('revenue', { since: w.start.toISOString(), ...query }),
    mine.before?.id === id ? mine.before.revenue : get('revenue', { since: w.before.toISOString(), until: w.start.toISOString(), ...query }),
  ]);
  mine.before = { id, revenue: before };
  mine.revenue = now;
  mine.window = w;
}

const narrow = () => innerWidth < 760;

const aPage = () => (narrow() ? 10 : 20);

async function askPayments(mine) {
  const { state, text } = mine.filter;
  if (/^pay_/.test(text)) {
    try {
      mine.payments = { data: [await get(`payments/${encodeURIComponent(text)}`)], page: {} };
    } catch (e) {
      if (e.status !== 404) throw e;
      mine.payments = { data: [], page: {} };
    }
    return;
  }
  mine.payments = await get('payments', { state, payer: text, limit: aPage() });
}

async function askHooks(mine) {
  const { data } = await get('webhooks', { limit: 20 });
  mine.hooks = await Promise.all(data.map(async (endpoint) => ({
    endpoint, deliveries: (await get(`webhooks/${encodeURIComponent(endpoint.id)}/deliveries`, { limit: 10 })).data,
  })));
}

/* Drawing */

const rangeWords = { 1: '24 hours', 7: '7 days', 30: '30 days', 90: '90 days' };

function drawRevenue() {
  const { revenue: r, window: w } = d;
  const shown = r.buckets;
  const before = d.before.revenue;
  const total = (list, field) => list.reduce((p, b) => p.add(b[field].amounts), new Purse(coins));
  const number = (list, f) => list.reduce((n, b) => n + f(b), 0);
  const earned = total(shown, 'earned');
  const sold = number(shown, (b) => b.earned.payments);
  const sum = earned.brief();
  d.earned = { text: sum, in: rangeWords[w.range], none: earned.get() === 0n };
  $('earned').textContent = sum;
  drawChange(earned.get(), total(before.buckets, 'earned').get(), r.complete && before.complete);
  const fact = (name, value) => h('div', {}, h('dt', {}, name), h('dd', {}, value));
  const back = number(shown, (b) => b.returned.payments);
  put($('facts'), fact('payments', count(sold)), fact(back === 1 ? 'refund' : 'refunds', back > 0 ? [count(back), h('small', {}, ` ${total(shown, 'returned').brief()}`)] : '0'), fact('not paid', count(number(shown, (b) => b.failed))));
  const data = { buckets: shown, interval: w.interval, coins, hours: w.range * 24, now: Date.now(), height: chartHeight() };
  if (sold + back === 0) put($('revenue-chart'), nothingSold(w));
  else revenueChart($('revenue-chart'), data);
  $('revenue').classList.toggle('nothing', sold + back === 0);
  put($('revenue-table'), revenueTable(data));
  const cut = !r.complete && new Date(r.since) > w.start;
  $('revenue-note').hidden = !cut;
  $('revenue-note').textContent = cut ? `There are more than 100,000 payments in this time; counted are those since ${new Date(r.since).toLocaleString()}.` : '';
  put($('latency-body'), latencySection($('latency-body'), r.settlement));
  $('latency-sub').textContent = plural(r.settlement.payments, 'payment');
  ready('latency');
}

function nothingSold(w) {
  const address = d.settings?.publicUrl || location.origin;
  return h('div', { class: 'first' }, h('p', {}, h('b', {}, `Nothing was sold in the last ${rangeWords[w.range]}.`), ' Buy something yourself, and it is here within a second:'),
    h('pre', {}, h('code', {}, `caddy x402 pay ${address.replace(/\/$/, '')}/…`)));
}

/** chartHeight is as high as the card is anyway, within reason. */
function chartHeight() {
  const host = $('revenue-chart');
  if (host.clientWidth < 520) return 190;
  return Math.max(240, Math.min(380, d.chartHeight ?? 240));
}

/** fitChart lets the chart fill its card when what stands beside that has made it higher. */
function fitChart() {
  const host = $('revenue-chart');
  const used = [...host.children].reduce((n, e) => n + e.offsetHeight, 0);
  const spare = host.clientHeight - used;
  if (!d.revenue || spare < 8 || host.clientWidth < 520) return;
  d.chartHeight = chartHeight() + spare;
  drawRevenue();
}

function drawChange(now, then, complete) {
  const e = $('earned-change');
  const range = rangeWords[d.window.range];
  e.className = 'change';
  if (!complete || then === 0n) {
    e.textContent = `in the last ${range}`;
    return;
  }
  const percent = Number((now - then) * 1000n / then) / 10;
  e.classList.add(percent >= 0 ? 'up' : 'down');
  e.textContent = percent === 0 ? `as much as in the ${range} before` : `${percent > 0 ? '▲' : '▼'} ${Math.abs(percent) >= 10 ? count(Math.abs(Math.round(percent))) : Math.abs(percent)}% ${percent > 0 ? 'more' : 'less'} than in the ${range} before`;
}

function drawStates() {
  put($('states-body'), statesSection(d.states, coins, choose));
  $('states-sub').textContent = plural(d.states.total, 'payment');
}

/** choose lists the payments of a state. */
function choose(state) {
  $('filter-state').value = state;
  $('filter-payer').value = '';
  filter();
  $('payments').scrollIntoView({ block: 'start' });
  $('filter-state').focus({ preventScroll: true });
}

function drawKeys() {
  const { calls, errors } = d.usage;
  $('keys-sub').textContent = `${plural(calls, 'call')} in 7 days${errors > 0 ? `, ${count(errors)} refused` : ''}`;
  put($('keys-body'), keysSection(d, Date.now()));
}

function drawWallets() {
  put($('wallets-body'), walletsSection(d, Date.now()));
}

function drawRefunds() {
  if (d.known.has('wallets')) drawWallets(); // which say whether they have enough for what is to go back
  const list = refundsSection(d, coins, tools);
  $('refunds').classList.toggle('calm', list.length === 0);
  put($('refunds-body'), list.length > 0 ? list : h('span', { class: 'state good' }, 'Nothing has failed, nothing waits'));
}

function drawPayments() {
  const { data, page } = d.payments;
  const sifted = d.filter.state || d.filter.text;
  const none = sifted ? empty('No payments match', page.next ? 'Many were looked at; go on with “Show more”.' : 'Choose another state, or another payer.') : empty('No payments yet', 'They are listed here as soon as somebody pays.');
  put($('payments-body'), data.length > 0 ? paymentsTable(data, coins, tools) : none);
  $('payments-more').hidden = !page.next;
  if (!sifted && d.feed.length === 0) d.feed = data.slice(0, 20).map(feedOf).sort((a, b) => new Date(b.at) - new Date(a.at));
  drawFeed();
}

const feedOf = (p) => ({
  id: p.id, payment: p.id, at: p.updatedAt, words: stateName(p.state), kind: states[p.state]?.[1] ?? 'quiet', text: what(p), sum: price(p), network: p.network,
});

function drawFeed() {
  $('feed').setAttribute('aria-busy', 'false');
  if (d.feed.length === 0) put($('feed-list'), h('li', { class: 'quiet-now' }, empty('Quiet so far', 'What happens is shown here while it happens.')));
  else put($('feed-list'), d.feed.slice(0, narrow() ? 6 : keptEvents).map((f) => feedItem(f, open, (d.settings?.networks.length ?? 0) > 1)));
}

function drawVerdict() {
  const list = needs(d, coins, Date.now());
  const v = $('verdict');
  v.setAttribute('aria-busy', 'false');
  const bad = list.some((n) => n.bad);
  const last = d.filter.state || d.filter.text ? null : d.payments.data[0];
  const latest = last ? `The last payment was made ${ago(last.createdAt)}.` : '';
  const income = !d.earned ? '' : d.earned.none && !last ? 'Nothing was sold yet, and everything that is looked after here is in order.' : `${d.earned.text} earned in ${d.earned.in}. ${latest}`;
  const [state, title, text] = d.trouble && d.asked === 0 ? ['unknown', 'How the shop is doing is not known', `${capital(d.trouble.message)}. It is tried again by itself.${d.trouble.requestId ? ` Request ${d.trouble.requestId}.` : ''}`]
    : d.trouble ? ['unknown', 'Not sure: not everything answers', `${capital(d.trouble.message)}. What is marked is as it was ${ago(d.asked)}; it is tried again by itself.`]
      : list.length === 0 ? ['good', d.states?.total === 0 && !last ? 'Ready for the first payment' : 'All is well', income]
        : [bad ? 'bad' : 'warn', list.length === 1 ? 'One thing needs you' : `${list.length} things need you`, income];
  const was = v.dataset.state;
  v.dataset.state = state;
  $('verdict-title').textContent = title;
  $('verdict-text').textContent = text;
  $('again').hidden = state !== 'unknown';
  drawNeeds(list);
  document.title = `${list.length > 0 ? `(${list.length}) ` : ''}${location.hostname} · x402 dashboard`;
  if (was !== state && was !== 'loading') say(title);
}

/** drawNeeds lists what needs somebody: the worst, and the rest when it is wanted. */
function drawNeeds(list) {
  const few = innerWidth < 560 ? 3 : 5;
  const shown = d.allNeeds || list.length <= few + 1 ? list : list.slice(0, few);
  put($('needs'), shown.map((n) => h('li', { class: n.bad ? 'bad' : null },
    h('div', {}, h('b', {}, n.title), h('span', {}, n.text)),
    h('button', { type: 'button', class: 'small', 'data-key': `need-${n.id}`, 'aria-label': `${n.act}: ${n.title}`, onclick: () => goTo(n) }, n.act))),
  list.length > shown.length && h('li', { class: 'more-needs' }, h('button', { type: 'button', class: 'small quiet', onclick: () => {
    d.allNeeds = true;
    drawNeeds(list);
    $('needs').children[few].querySelector('button').focus();
  } }, `Show ${count(list.length - shown.length)} more`)));
}

function goTo(need) {
  if (need.state) {
    choose(need.state);
    return;
  }
  const e = $(need.where);
  e.scrollIntoView({ block: 'start' });
  e.setAttribute('tabindex', '-1');
  e.focus({ preventScroll: true });
}

function notice(text) {
  $('notice').hidden = !text;
  if ($('notice').textContent !== (text ?? '')) $('notice').textContent = text ?? '';
}

/* The feed */

function pulse(state) {
  if ($('pulse').dataset.state === state) return;
  $('pulse').dataset.state = state;
  $('pulse-text').textContent = { on: 'Live', away: 'Reconnecting', off: 'Every 30 s' }[state];
}

let soon = null;

function heard(type, ev) {
  if (!d) return;
  if (type === 'end') {
    refresh(); // which says why
    return;
  }
  const x = ev.data;
  if (!x?.paymentId || d.feed.some((f) => f.id === ev.id)) return;
  const [words, kind] = eventWords[type] ?? [type, 'quiet'];
  d.feed.unshift({
    id: ev.id, payment: x.paymentId, at: ev.timestamp, words, kind, fresh: true, network: ev.network,
    text: `${what({ plan: x.plan, method: x.method, uri: x.uri, route: x.route, flow: x.flow })}${x.reason ? `: ${x.reason.replaceAll('_', ' ')}` : ''}`,
    sum: money(BigInt(x.amount), coins.name({ network: ev.network, asset: x.asset, symbol: x.symbol, amount: x.amount })),
  });
  d.feed.length = Math.min(d.feed.length, keptEvents);
  drawFeed();
  for (const f of d.feed) f.fresh = false;
  soon ??= setTimeout(() => { soon = null; if (d && !document.hidden) refresh(); }, Math.max(gather, 10 * d.took));
}

/* What can be done */

/** deeds are what can be done with a payment as it stands. */
const deeds = {
  REFUND_FAILED: { label: 'Try again', path: (p) => `refunds/${p.id}/retry`, title: 'Try the refund again?', text: (p) => `${paid(p)} go back to ${p.payer}. It goes on with the transfer that was begun, so nothing is paid twice.`, done: 'The refund is tried again.' },
  SETTLING: { label: 'Look now', path: (p) => `payments/${p.id}/settle`, title: 'Look after this payment now?', text: () => 'What was signed is sent again, and the chain is asked. Nothing is paid twice.', done: 'It is looked after now.' },
  PAID: { label: 'Give back', danger: true, path: (p) => `payments/${p.id}/refund`, title: 'Give this payment back?', text: (p) => `${paid(p)} go back to ${p.payer}. That can’t be undone.`, done: 'It goes back.' },
};

function actions(p) {
  const deed = deeds[p.state];
  if (!deed || !may('payments:write')) return null;
  return h('button', { type: 'button', class: 'small', 'data-key': `do-${p.id}`, 'aria-label': `${deed.label}: ${paid(p)}, ${what(p)}`, onclick: () => confirm(deed, p) }, deed.label);
}

const tools = { open, actions };

/** confirm asks before it changes something. The same Idempotency-Key is sent as long as the question stands. */
function confirm(deed, p) {
  const id = newID();
  const yes = $('ask-yes');
  $('ask-title').textContent = deed.title;
  $('ask-text').textContent = deed.text(p);
  $('ask-error').textContent = '';
  yes.textContent = deed.label;
  yes.className = `primary ${deed.danger ? 'danger' : ''}`;
  yes.onclick = async () => {
    busy(yes, true);
    try {
      await post(deed.path(p), id);
      $('ask').close();
      if ($('sheet').open) $('sheet').close();
      say(deed.done);
      await refresh();
    } catch (e) {
      if (!(e instanceof Refusal)) throw e;
      if (!ended(e)) $('ask-error').textContent = `${capital(e.message)}.`;
    } finally {
      busy(yes, false);
    }
  };
  $('ask').showModal();
  $('ask-no').focus();
}

function busy(button, is) {
  button.disabled = is;
  if (is) button.setAttribute('aria-busy', 'true');
  else button.removeAttribute('aria-busy');
}

/** once runs a change that needs no question. */
async function once(button, change, done) {
  busy(button, true);
  try {
    await change();
    say(done);
    await refresh();
  } catch (e) {
    if (!(e instanceof Refusal)) throw e;
    if (!ended(e)) notice(`${capital(e.message)}.`);
  } finally {
    busy(button, false);
  }
}

const redeliver = (e, x, button) => once(button, () => post(`webhooks/${e.id}/deliveries/${x.id}/redeliver`, newID()), 'It is delivered again.');
const testHook = (e, button) => once(button, () => post(`webhooks/${e.id}/test`, newID()), 'A test is on its way.');

async function open(id) {
  put($('sheet-body'), skeleton(8));
  $('sheet-body').setAttribute('aria-busy', 'true');
  if (!$('sheet').open) $('sheet').showModal();
  try {
    const p = await get(`payments/${encodeURIComponent(id)}`);
    if (d) put($('sheet-body'), sheetBody(p, actions));
  } catch (e) {
    if (!(e instanceof Refusal)) throw e;
    if (!ended(e)) put($('sheet-body'), h('div', { class: 'broken' }, h('b', {}, 'It could not be asked for'), h('p', {}, `${e.message}.`), h('button', { type: 'button', class: 'small', onclick: () => open(id) }, 'Ask again')));
  }
  $('sheet-body').setAttribute('aria-busy', 'false');
}

function filter() {
  d.filter = { state: $('filter-state').value, text: $('filter-payer').value.trim() };
  $('payments').setAttribute('aria-busy', 'true');
  part('payments', () => askPayments(d), drawPayments).then((e) => {
    if (!d || e?.status !== 400) return;
    $('payments').classList.remove('stale');
    $('payments-more').hidden = true;
    put($('payments-body'), empty('No payments match', `${capital(e.message)}.`));
  });
}

async function more() {
  const button = $('payments-more');
  busy(button, true);
  try {
    const { state, text } = d.filter;
    const next = await get('payments', { state, payer: text, limit: aPage(), cursor: d.payments.page.next });
    d.payments = { data: [...d.payments.data, ...next.data], page: next.page };
    drawPayments();
  } catch (e) {
    if (!(e instanceof Refusal)) throw e;
    if (!ended(e)) notice(`${capital(e.message)}.`);
  } finally {
    busy(button, false);
  }
}

/* The page's own controls */

$('filter-state').append(...Object.keys(states).map((s) => h('option', { value: s }, stateName(s))));

$('sign-in-form').addEventListener('submit', (e) => {
  e.preventDefault();
  const secret = $('key').value.trim();
  if (isKey(secret)) signIn(secret);
  else {
    $('key-error').textContent = 'An API key begins with sk_live_ or sk_test_. Check that all of it was copied.';
    $('key').setAttribute('aria-invalid', 'true');
    $('key').focus();
  }
});
$('again').addEventListener('click', (e) => once(e.currentTarget, async () => {}, 'It was asked again.'));
$('sign-out').addEventListener('click', () => signOut());
$('range').addEventListener('change', (e) => {
  d.range = Number(e.target.value);
  $('revenue').setAttribute('aria-busy', 'true');
  $('revenue').classList.add('stale');
  (asking ?? Promise.resolve()).then(() => { if (d) refresh(); });
});
$('filter').addEventListener('submit', (e) => { e.preventDefault(); filter(); });
$('filter').addEventListener('change', filter);
$('payments-more').addEventListener('click', more);
$('sheet-close').addEventListener('click', () => $('sheet').close());
$('sheet').addEventListener('click', (e) => { if (e.target === $('sheet') && e.offsetX < 0) $('sheet').close(); });
$('ask-no').addEventListener('click', () => $('ask').close());
document.addEventListener('visibilitychange', () => { if (d && !document.hidden && Date.now() - d.asked > gather) refresh(); });

let width = innerWidth;
addEventListener('resize', () => {
  if (Math.abs(innerWidth - width) < 8) return; // a phone's address bar comes and goes
  width = innerWidth;
  requestAnimationFrame(() => { if (d?.revenue) drawRevenue(); });
});

/** again takes up a key that the tab has. One that may be good is tried until that is known. */
function again() {
  begin().catch((e) => {
    if (!e.temporary) {
      signOut(wrongKey(e));
      return;
    }
    notice(`${wrongKey(e)} It is tried again.`);
    setTimeout(again, 5000);
  });
}

if (key.get()) again();
else show('sign-in');
