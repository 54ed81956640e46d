// What the daemon is at, pushed by the server while the page is seen. A hidden page lets its
// connection go, for a browser has only six to one host.

import { getText } from './api.js';

const text = document.querySelector('[data-live]');
const lamp = document.querySelector('[data-lamp]');
let source = null;
let last = null;

function show(pulse) {
  if (text && text.textContent !== pulse.text) text.textContent = pulse.text;
  if (lamp) lamp.dataset.is = pulse.lamp;
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
  source = new EventSource('/api/events');
  source.addEventListener('pulse', (event) => show(JSON.parse(event.data)));
  source.addEventListener('error', () => {
    if (text) text.textContent = 'No connection to imgsortd web';
    if (lamp) lamp.dataset.is = 'wrong';
    if (source.readyState === EventSource.CLOSED) {
      source = null;
      setTimeout(listen, 5000);
    }
  });
}

function rest() {
  source?.close();
  source = null;
}

document.addEventListener('visibilitychange', () => (document.hidden ? rest() : listen()));
addEventListener('pagehide', rest);
addEventListener('pageshow', listen);
listen();

export const lastPulse = () => last;

// Takes over what differs, element by element, so that neither a focus nor a loaded picture is lost.
export function morph(from, to) {
  if (from.nodeType !== to.nodeType || from.nodeName !== to.nodeName) return from.replaceWith(to);
  if (from.nodeType !== Node.ELEMENT_NODE) {
    if (from.data !== to.data) from.data = to.data;
    return;
  }
  if (from === document.activeElement && from.matches('input')) return;
  for (const { name } of [...from.attributes]) if (!to.hasAttribute(name) && name !== 'hidden') from.removeAttribute(name);
  for (const { name, value } of [...to.attributes]) if (from.getAttribute(name) !== value) from.setAttribute(name, value);
  if (from.matches('input')) return;
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

// Fetches a part of the page again, at most every two seconds.
export function refresher(path, take) {
  let due = 0;
  let timer = null;
  const now = async () => {
    timer = null;
    due = Date.now() + 2000;
    try {
      const page = new DOMParser().parseFromString(await getText(path()), 'text/html');
      take(page.body);
    } catch { /* the next pulse tries again */ }
  };
  return () => { timer ??= setTimeout(now, Math.max(0, due - Date.now())); };
}
