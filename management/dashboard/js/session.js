// Signing in and out, and hearing of what happens while somebody is signed in.

import { Feed, get, key, networkOf } from './api.js';
import { refresh } from './board.js';
import { $ } from './dom.js';
import { blank, drawFeed, keptEvents, notice } from './drawing.js';
import { money, tick } from './format.js';
import { act, coins, d, forget, know } from './known.js';
import { eventWords, what } from './sections.js';

const every = 30_000; // how often everything is asked for again, seen or not by the feed
export const gather = 10_000; // how long events are gathered before their effect is asked for

let timers = [];
let soon = null; // when what was heard is asked for
let frame = null; // when it is drawn: however much is heard, not more often than can be seen

const feed = new Feed({ event: heard, state: pulse });

export async function signIn(secret) {
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

act.keyEnded = (e) => signOut(`You were signed out. ${wrongKey(e)}`);

export function signOut(why) {
  key.forget();
  feed.stop();
  pulse('off');
  timers.forEach(clearInterval);
  timers = [];
  clearTimeout(soon);
  soon = null;
  forget();
  for (const id of ['sheet', 'ask']) if ($(id).open) $(id).close();
  $('ask-yes').onclick = null;
  blank();
  $('mode').hidden = true;
  document.title = 'x402 dashboard';
  show('sign-in');
  notice(null);
  $('key').value = '';
  $('key-error').textContent = why ?? '';
  $('key').focus();
}

export function show(view) {
  document.body.dataset.view = view;
  $('sign-in').hidden = view !== 'sign-in';
  $('board').hidden = view !== 'board';
}

/** begin asks who we are, which also says whether the key is good, and shows the board. */
async function begin() {
  const me = await get('api-keys/current');
  know(me);
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
  blank();
  $('main').focus();
  feed.start();
  timers = [setInterval(() => tick(), 5000), setInterval(() => { if (!document.hidden) refresh(); }, every)];
  await refresh();
}

/** again takes up a key that the tab has. One that may be good is tried until that is known. */
export function again() {
  begin().catch((e) => {
    if (!e.temporary) {
      signOut(wrongKey(e));
      return;
    }
    notice(`${wrongKey(e)} It is tried again.`);
    setTimeout(again, 5000);
  });
}

function pulse(state) {
  if ($('pulse').dataset.state === state) return;
  $('pulse').dataset.state = state;
  $('pulse-text').textContent = { on: 'Live', away: 'Reconnecting', off: 'Every 30 s' }[state];
}

function drawNews() {
  frame = null;
  if (!d) return;
  drawFeed();
  for (const f of d.feed) f.fresh = false;
}

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
  frame ??= requestAnimationFrame(drawNews);
  soon ??= setTimeout(() => { soon = null; if (d && !document.hidden) refresh(); }, Math.max(gather, 10 * d.took));
}
