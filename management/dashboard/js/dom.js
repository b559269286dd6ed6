// Elements are made here and nowhere else. Texts are only ever texts: what strangers have sent, such as a path, can't become markup.

const svgSpace = 'http://www.w3.org/2000/svg';

export const $ = (id) => document.getElementById(id);

/** narrow reports whether the window is a phone's. */
export const narrow = () => innerWidth < 760;

/** h makes an element: h('p', {class: 'x', onclick: f}, 'text', child, …). Attributes that are null or false are left out. */
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** s is h for SVG. */
export function s(tag, attributes, ...children) {
  return fill(document.createElementNS(svgSpace, tag), attributes, children);
}

function fill(e, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) e.addEventListener(name.slice(2), value);
    else e.setAttribute(name, value === true ? '' : String(value));
  }
  e.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return e;
}

/** put replaces what is in an element, and leaves the focus where it was if what had it is there again under its data-key. */
export function put(e, ...children) {
  const key = e.contains(document.activeElement) ? document.activeElement.closest('[data-key]')?.dataset.key : null;
  e.replaceChildren(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  if (key) e.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

/** ready says that a section shows what it should. */
export function ready(id) {
  $(id).setAttribute('aria-busy', 'false');
}

/** say tells people who listen to the page what has happened. */
export function say(text) {
  $('said').textContent = '';
  setTimeout(() => { $('said').textContent = text; }, 50);
}

/** empty is what a section shows that has nothing to show. */
export function empty(title, text) {
  return h('div', { class: 'empty' }, h('p', {}, h('b', {}, title)), text && h('p', {}, text));
}

/** skeleton stands where something will be. */
export function skeleton(lines = 3) {
  return h('div', { class: 'skeleton', 'aria-hidden': 'true' }, Array.from({ length: lines }, () => h('i')));
}

/** copyable shows an address or an id shortened; a click copies all of it. */
export function copyable(text, shown = shorten(text)) {
  const b = h('button', { type: 'button', class: 'copy', title: `Copy ${text}`, 'data-key': `copy-${text}` }, shown, h('span', { class: 'hidden' }, ': copy it'));
  b.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text);
      b.classList.add('copied');
      say('Copied');
      setTimeout(() => b.classList.remove('copied'), 1200);
    } catch { // without https browsers have no clipboard
      b.textContent = text;
      getSelection()?.selectAllChildren(b);
    }
  });
  return b;
}

export function shorten(text) {
  return text.length > 18 ? `${text.slice(0, 8)}…${text.slice(-6)}` : text;
}
