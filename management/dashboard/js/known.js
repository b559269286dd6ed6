// What is known while somebody is signed in, and what can be done with it.

import { Coins } from './format.js';

export let d; // what is known; nothing is while nobody is signed in
export let coins = new Coins();

/** know begins with the key of who has signed in; forget ends with it. */
export function know(me) {
  d = { me, range: 7 /* as the page has it */, feed: [], payments: { data: [], page: {} }, filter: { state: '', text: '', pages: 1 }, known: new Set(), trouble: null, asked: 0, took: 0 };
}

export function forget() {
  d = undefined;
}

/** reckon has money counted as the shop's settings say. */
export function reckon(settings) {
  coins = new Coins(settings);
}

export const may = (scope) => d?.me.scopes.includes(scope);

/** act is what is done when something that is drawn is pressed, or when the key has ended. Those who do it put it here: they draw, too. */
export const act = {};

/** ended reports whether the key of who knew `mine` is of no use any more, and says so unless somebody else has signed in meanwhile. */
export function ended(e, mine) {
  if (e.status !== 401) return false;
  if (d && d === mine) act.keyEnded(e);
  return true;
}
