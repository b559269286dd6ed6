// The dashboard: its own controls. What they do is done elsewhere.

import { filter, more, once } from './acts.js';
import { isKey, key } from './api.js';
import { lookBack, refresh } from './board.js';
import { $, h } from './dom.js';
import { drawRevenue } from './earned.js';
import { stateName, states } from './format.js';
import { d } from './known.js';
import { again, gather, show, signIn, signOut } from './session.js';

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
$('range').addEventListener('change', (e) => lookBack(Number(e.target.value)));
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

if (key.get()) again();
else show('sign-in');
