// The verdict: how the shop is doing, in a sentence, and what needs somebody.

import { $, h, put, say } from './dom.js';
import { ago, capital, count } from './format.js';
import { act, coins, d } from './known.js';
import { needs } from './needs.js';

export function drawVerdict() {
  const list = needs(d, coins, Date.now());
  const [state, title, text] = judge(list);
  const v = $('verdict');
  const was = v.dataset.state;
  v.setAttribute('aria-busy', 'false');
  v.dataset.state = state;
  $('verdict-title').textContent = title;
  $('verdict-text').textContent = text;
  $('again').hidden = !d.trouble;
  drawNeeds(list);
  document.title = `${list.length > 0 ? `(${list.length}) ` : ''}${location.hostname} · x402 dashboard`;
  if (was !== state && was !== 'loading') say(title);
}

/** judge gives the verdict's state, title and text. What nobody could see is not well. */
function judge(list) {
  if (d.trouble) {
    const why = capital(d.trouble.message);
    return d.asked === 0
      ? ['unknown', 'How the shop is doing is not known', `${why}. It is tried again by itself.${d.trouble.requestId ? ` Request ${d.trouble.requestId}.` : ''}`]
      : ['unknown', 'Not sure: not everything answers', `${why}. What is marked is as it was ${ago(d.asked)}; it is tried again by itself.`];
  }
  const sifted = d.filter.state || d.filter.text;
  const last = sifted ? null : d.payments.data[0];
  const first = !sifted && !last;
  const latest = last ? `The last payment was made ${ago(last.createdAt)}.` : '';
  const income = !d.earned ? '' : d.earned.none && first ? 'Nothing was sold yet, and everything that is looked after here is in order.' : `${d.earned.text} earned in ${d.earned.in}. ${latest}`;
  if (list.length > 0) return [list.some((n) => n.bad) ? 'bad' : 'warn', list.length === 1 ? 'One thing needs you' : `${list.length} things need you`, income];
  if (['states', 'refunds', 'wallets'].some((id) => !d.known.has(id))) return ['unknown', 'How the shop is doing is not for this key', 'To see it, a key needs the scope payments:read.'];
  return ['good', d.states.total === 0 && first ? 'Ready for the first payment' : 'All is well', income];
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
    act.choose(need.state);
    return;
  }
  const e = $(need.where);
  e.scrollIntoView({ block: 'start' });
  e.setAttribute('tabindex', '-1');
  e.focus({ preventScroll: true });
}
