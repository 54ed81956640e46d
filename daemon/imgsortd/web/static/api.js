// Asks the server: reads as JSON, changes as requests that the daemon answers.

const token = document.querySelector('meta[name="csrf-token"]')?.content ?? '';
const LOOK_AGAIN_MS = [60, 120, 250, 400];
const AWAY_MS = 2000;

// `isPassing`: the same may work later, as when a process is being started again.
export class Refused extends Error {
  constructor(words, isPassing = false) {
    super(words);
    this.isPassing = isPassing;
  }
}

async function reach(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: 'same-origin', ...options });
  } catch {
    throw new Refused('imgsortd web cannot be reached', true);
  }
  if (response.status === 401) location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  throw new Refused(said.error ?? `the server answered ${response.status}`, [429, 502, 503, 504].includes(response.status));
}

export const get = async (path) => (await reach(path)).json();
export const getText = async (path) => (await reach(path)).text();
export const touch = (path) => reach(path, { method: 'HEAD' });

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// Leaves a request and waits for the daemon's answer, however long: a daemon that was stopped
// carries it out when it is back, and then the page must know.
export async function ask(verb, body) {
  const left = await reach(`/api/${verb}`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'X-CSRF-Token': token },
    body: JSON.stringify(body),
  });
  const { request } = await left.json();
  for (let look = 0; ; look += 1) {
    const { state, result } = await get(`/api/requests/${request}`).catch((error) => {
      if (!error.isPassing) throw error;
      return { state: 'unknown' };
    });
    if (state === 'done') return result;
    if (state === 'failed') throw new Refused(result.error ?? 'the daemon gave no reason');
    await sleep(state === 'unknown' ? AWAY_MS : LOOK_AGAIN_MS[Math.min(look, LOOK_AGAIN_MS.length - 1)]);
  }
}

export const count = (number, thing) => `${number.toLocaleString('en')} ${thing}${number === 1 ? '' : 's'}`;

export const thumbnail = (id, key) => `/pictures/${id}/thumbnail?v=${key}`;
export const preview = (id, key) => `/pictures/${id}/preview?v=${key}`;

// A small maker of elements; text is always text.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value == null) continue;
    if (name in element && typeof value !== 'string') element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function icon(path) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const names = { viewBox: '0 0 24 24', fill: 'none', stroke: 'currentColor', 'stroke-width': '2', 'stroke-linecap': 'round', 'stroke-linejoin': 'round', 'aria-hidden': 'true' };
  for (const [name, value] of Object.entries(names)) svg.setAttribute(name, value);
  const line = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  line.setAttribute('d', path);
  svg.append(line);
  return svg;
}

export const CROSS = 'M6 6l12 12M18 6L6 18';
export const TICK = 'M5 12.5l5 5L19 7';
export const BACK = 'M15 5l-7 7 7 7';
export const ON = 'M9 5l7 7-7 7';

// A press beside a dialog closes it; one that only ends there, as when text is marked, does not.
export function closeOutside(dialog) {
  dialog.addEventListener('pointerdown', ({ target, clientX: x, clientY: y }) => {
    const box = dialog.getBoundingClientRect();
    if (target === dialog && (x < box.left || x > box.right || y < box.top || y > box.bottom)) dialog.close();
  });
}

// Keys belong to the page only while no field, dialog or browser command wants them.
export function isForPage(event) {
  if (event.defaultPrevented || event.altKey || event.metaKey) return false;
  if (document.querySelector('dialog[open]')) return false;
  return !event.target.closest?.('input, select, textarea, [contenteditable]');
}
