// The browser, and what looks at a page in it. The order comes as JSON.
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

export const order = JSON.parse(readFileSync(0, 'utf8')); // { url, key, reader, browser, shots, scenes }
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
mkdirSync(order.shots, { recursive: true });

export const wrong = [];
export const seen = {};
export const desktop = { width: 1360, height: 900 };
export const phone = { width: 360, height: 780 };

export const browser = await chromium.launch({ executablePath: order.browser, args: ['--no-sandbox', '--disable-dev-shm-usage'] });

/** visit opens the dashboard in a browser of its own, and closes that when the scene is over. What the page complains of is wrong. */
export async function visit(name, { viewport = desktop, colorScheme = 'light', prepare, key = order.key, quick = false, timezoneId }, scene) {
  const context = await browser.newContext({ viewport, colorScheme, bypassCSP: false, reducedMotion: 'reduce', locale: 'en-GB', timezoneId });
  context.setDefaultTimeout(60_000); // on a busy machine, too
  const page = await context.newPage();
  const expected = [];
  page.on('console', (m) => {
    if (m.type() === 'error' && !expected.some((e) => m.text().includes(e))) wrong.push(`${name}: the console says ${m.text()}`);
  });
  page.on('pageerror', (e) => wrong.push(`${name}: ${e.stack}`));
  page.on('request', (r) => {
    if (!r.url().startsWith(new URL(order.url).origin)) wrong.push(`${name}: it asks for ${r.url()}`);
    if (r.url().includes('sk_test_')) wrong.push(`${name}: the key is in an address`);
  });
  if (prepare) await prepare(page, expected);
  await page.goto(order.url);
  if (key) {
    await page.getByLabel('API key', { exact: true }).fill(key);
    await page.keyboard.press('Enter');
  }
  try {
    await scene(page, expected);
  } catch (e) {
    wrong.push(`${name}: ${e.message}`);
  }
  await look(page, name, quick);
  await context.close();
}

/** settle waits until all sections show what they have. */
export const settle = (page) => page.waitForFunction(() => document.body.dataset.view === 'board' && !document.querySelector('#board [aria-busy="true"]'), null);

/** look takes a picture, looks for what does not fit, and has axe look, unless it must be quick: axe has seen the same in another scene. */
export async function look(page, name, quick) {
  await page.screenshot({ path: join(order.shots, `${name}.png`), fullPage: true });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (wide > 0) wrong.push(`${name}: it is ${wide} px wider than the window`);
  const spilled = await page.evaluate(() => [...document.querySelectorAll('body *')].filter((e) => {
    if (e.closest('svg, .hidden, input') || e.clientWidth < 2 || e.scrollWidth <= e.clientWidth + 1) return false;
    const { overflowX, textOverflow } = getComputedStyle(e);
    return overflowX === 'visible' || overflowX === 'hidden' && textOverflow !== 'ellipsis';
  }).map((e) => `${e.tagName} ${e.id} ${e.className}, by ${e.scrollWidth - e.clientWidth} px: ${e.textContent.slice(0, 60)}`));
  spilled.push(...await page.evaluate(() => [...document.querySelectorAll('svg text')].filter((e) => {
    const [own, all] = [e.getBoundingClientRect(), e.ownerSVGElement.getBoundingClientRect()];
    return own.left < all.left - 1 || own.right > all.right + 1;
  }).map((e) => `the mark ${e.textContent}`)));
  for (const s of spilled.slice(-3)) wrong.push(`${name}: it does not fit: ${s}`);
  if (quick) return;
  const world = await page.context().newCDPSession(page); // a world of its own, so that the page's policy need not let it in
  const { frameTree } = await world.send('Page.getFrameTree');
  const { executionContextId } = await world.send('Page.createIsolatedWorld', { frameId: frameTree.frame.id });
  const said = await world.send('Runtime.evaluate', {
    contextId: executionContextId, awaitPromise: true, returnByValue: true,
    expression: `${axe};axe.run(document,{runOnly:['wcag2a','wcag2aa','wcag21a','wcag21aa','wcag22aa','best-practice']}).then(r=>r.violations.map(v=>({id:v.id,impact:v.impact,nodes:v.nodes.map(n=>n.html.slice(0,160)+' '+(n.any[0]?.message??''))})))`,
  });
  if (said.exceptionDetails) wrong.push(`${name}: axe: ${JSON.stringify(said.exceptionDetails).slice(0, 400)}`);
  for (const v of said.result?.value ?? []) {
    if (v.impact === 'serious' || v.impact === 'critical') wrong.push(`${name}: axe: ${v.id} (${v.impact}): ${v.nodes.slice(0, 3).join(' | ')}`);
    else (seen.minor ??= []).push(`${name}: ${v.id}`);
  }
}

export const text = (page, id) => page.locator(`#${id}`).innerText();
export const must = (name, ok, why) => { if (!ok) wrong.push(`${name}: ${why}`); };
