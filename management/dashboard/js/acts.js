// What can be done: opening and sifting payments, and what changes something.

import { Refusal, get, newID, post } from './api.js';
import { askPayments } from './asking.js';
import { askAnew, part } from './board.js';
import { $, h, put, say, skeleton } from './dom.js';
import { drawPayments, notice } from './drawing.js';
import { capital, paid } from './format.js';
import { act, d, ended, may } from './known.js';
import { sheetBody, what } from './sections.js';

/** deeds are what can be done with a payment as it stands. */
const deeds = {
  REFUND_FAILED: { label: 'Try again', path: (p) => `refunds/${p.id}/retry`, title: 'Try the refund again?', text: (p) => `${paid(p)} go back to ${p.payer}. It goes on with the transfer that was begun, so nothing is paid twice.`, done: 'The refund is tried again.' },
  SETTLING: { label: 'Look now', path: (p) => `payments/${p.id}/settle`, title: 'Look after this payment now?', text: () => 'What was signed is sent again, and the chain is asked. Nothing is paid twice.', done: 'It is looked after now.' },
  PAID: { label: 'Give back', danger: true, path: (p) => `payments/${p.id}/refund`, title: 'Give this payment back?', text: (p) => `${paid(p)} go back to ${p.payer}. That can’t be undone.`, done: 'It goes back.' },
};

function actions(p) {
  const deed = deeds[p.state];
  if (!deed || !may('payments:write')) return null;
  return h('button', { type: 'button', class: 'small', 'data-key': `do-${p.id}`, 'aria-label': `${deed.label}: ${paid(p)}, ${what(p)}`, onclick: () => question(deed, p) }, deed.label);
}

/** question asks before it changes something. The same Idempotency-Key is sent as long as the question stands. */
function question(deed, p) {
  const mine = d;
  const it = mine.question = {};
  const stands = () => d === mine && mine.question === it && $('ask').open;
  const id = newID();
  const yes = $('ask-yes');
  busy(yes, false);
  $('ask-title').textContent = deed.title;
  $('ask-text').textContent = deed.text(p);
  $('ask-error').textContent = '';
  yes.textContent = deed.label;
  yes.className = `primary ${deed.danger ? 'danger' : ''}`;
  yes.onclick = async () => {
    busy(yes, true);
    try {
      await post(deed.path(p), id);
      if (stands()) {
        $('ask').close();
        if ($('sheet').open) $('sheet').close();
      }
      say(deed.done);
      await askAnew();
    } catch (e) {
      if (!(e instanceof Refusal)) throw e;
      if (ended(e, mine) || d !== mine) return;
      if (stands()) $('ask-error').textContent = `${capital(e.message)}.`;
      else notice(`${capital(e.message)}.`); // it was closed meanwhile
    } finally {
      if (d === mine && mine.question === it) busy(yes, false);
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
export async function once(button, change, done) {
  const mine = d;
  busy(button, true);
  try {
    await change();
    say(done);
    await askAnew();
  } catch (e) {
    if (!(e instanceof Refusal)) throw e;
    if (!ended(e, mine) && d === mine) notice(`${capital(e.message)}.`);
  } finally {
    busy(button, false);
  }
}

const redeliver = (e, x, button) => once(button, () => post(`webhooks/${e.id}/deliveries/${x.id}/redeliver`, newID()), 'It is delivered again.');
const test = (e, button) => once(button, () => post(`webhooks/${e.id}/test`, newID()), 'A test is on its way.');

async function openPayment(id) {
  const mine = d;
  const it = mine.opened = {}; // another may be opened before this one is there
  put($('sheet-body'), skeleton(8));
  $('sheet-body').setAttribute('aria-busy', 'true');
  if (!$('sheet').open) $('sheet').showModal();
  try {
    const p = await get(`payments/${encodeURIComponent(id)}`);
    if (d !== mine || mine.opened !== it) return;
    put($('sheet-body'), sheetBody(p, actions));
  } catch (e) {
    if (!(e instanceof Refusal)) throw e;
    if (ended(e, mine) || d !== mine || mine.opened !== it) return;
    put($('sheet-body'), h('div', { class: 'broken' }, h('b', {}, 'It could not be asked for'), h('p', {}, `${e.message}.`), h('button', { type: 'button', class: 'small', onclick: () => openPayment(id) }, 'Ask again')));
  }
  $('sheet-body').setAttribute('aria-busy', 'false');
}

export function filter() {
  sift({ state: $('filter-state').value, text: $('filter-payer').value.trim(), pages: 1 });
}

/** sift lists other payments, or more of them; they are asked for from now on. */
function sift(filter) {
  d.filter = filter;
  $('payments').setAttribute('aria-busy', 'true');
  return part('payments', () => askPayments(d), drawPayments);
}

/** choose lists the payments of a state. */
function choose(state) {
  $('filter-state').value = state;
  $('filter-payer').value = '';
  filter();
  $('payments').scrollIntoView({ block: 'start' });
  $('filter-state').focus({ preventScroll: true });
}

export async function more() {
  const button = $('payments-more');
  busy(button, true);
  await sift({ ...d.filter, pages: d.filter.pages + 1 });
  busy(button, false);
}

Object.assign(act, { actions, choose, open: openPayment, redeliver, test });
