// What the daemon is at, pushed by the server while the page is seen. A hidden page lets its
// connection go, for a browser has only six to one host.

import { getText, touch } from './api.js';

const text = document.querySelector('[data-live]');
const lamp = document.querySelector('[data-lamp]');
const told = document.querySelector('[data-told]');
const AWAY_MS = 4000;
let lost = null;
let source = null;
let last = null;

// The words change every second while the daemon sorts: a screen reader is told only of what is wrong,
// and when it is no longer.
function say(words, is) {
  if ((is === 'wrong') !== (lamp.dataset.is === 'wrong')) told.textContent = words;
  if (text.textContent !== words) text.textContent = words;
  lamp.dataset.is = is;
}

function show(pulse) {
  clearTimeout(lost);
  lost = null;
  say(pulse.text, pulse.lamp);
  const counts = { review: pulse.review, refits: pulse.waiting === null ? 0 : 1 };
  for (const [name, number] of Object.entries(counts)) {
    const badge = document.querySelector(`[data-count="${name}"]`);
    if (badge) badge.textContent = number ? number.toLocaleString('en') : '';
  }
  last = pulse;
  document.dispatchEvent(new CustomEvent('pulse', { detail: pulse }));
}

function listen() {
  if (document.hidden || source) return;
  const stream = new EventSource('/api/events');
  source = stream;
  stream.addEventListener('pulse', (event) => show(JSON.parse(event.data)));
  stream.addEventListener('error', () => {
    // A stream ends now and then, and is begun anew at once.
    lost ??= setTimeout(() => say('No connection to imgsortd web', 'wrong'), AWAY_MS);
    if (stream !== source || stream.readyState !== EventSource.CLOSED) return;
    source = null;
    touch('/api/events').catch(() => {}); // leads to the login page where the session is over
    setTimeout(listen, 5000);
  });
}

function rest() {
  source?.close();
  source = null;
  clearTimeout(lost);
  lost = null;
}

document.addEventListener('visibilitychange', () => (document.hidden ? rest() : listen()));
addEventListener('pagehide', rest);
addEventListener('pageshow', listen);
listen();

export const lastPulse = () => last;

// Takes over what differs, element by element, so that neither a focus nor a loaded picture is lost.
export function update(from, to) {
  const focused = document.activeElement;
  const had = from.contains(focused);
  morph(from, to);
  if (had && document.activeElement !== focused) (focused.isConnected ? focused : document.querySelector('#main')).focus({ preventScroll: true });
}

const OURS = ['hidden', 'aria-disabled', 'open']; // set by the page, not by the server

function morph(from, to) {
  if (from.nodeType !== to.nodeType || from.nodeName !== to.nodeName) return from.replaceWith(to);
  if (from.nodeType !== Node.ELEMENT_NODE) {
    if (from.data !== to.data) from.data = to.data;
    return;
  }
  if (from.matches('input')) return;
  for (const { name } of [...from.attributes]) if (!to.hasAttribute(name) && !OURS.includes(name)) from.removeAttribute(name);
  for (const { name, value } of [...to.attributes]) if (from.getAttribute(name) !== value) from.setAttribute(name, value);
  const known = new Map([...from.children].filter((child) => child.id).map((child) => [child.id, child]));
  let at = from.firstChild;
  for (const child of [...to.childNodes]) {
    const same = child.id && known.get(child.id);
    if (same && same !== at) from.insertBefore(same, at);
    if (same) at = same;
    if (!at || (at.id && at.id !== (child.id ?? ''))) from.insertBefore(child, at);
    else {
      const next = at.nextSibling;
      morph(at, child);
      at = next;
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

export const getPart = async (path) => new DOMParser().parseFromString(await getText(path), 'text/html').body;

// Fetches a part of the page again, at most every two seconds.
export function refresher(path, take) {
  let due = 0;
  let timer = null;
  const now = async () => {
    timer = null;
    due = Date.now() + 2000;
    try {
      take(await getPart(path()));
    } catch { /* the next pulse tries again */ }
  };
  return () => { timer ??= setTimeout(now, Math.max(0, due - Date.now())); };
}

// The same for a part that the server gives as a whole.
export const refreshed = (part, path) => refresher(() => path, (body) => {
  const fresh = part.cloneNode(false);
  fresh.append(...body.childNodes);
  update(part, fresh);
});
