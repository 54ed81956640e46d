// The grid of clusters: searched and ordered here, kept up to date while the daemon sorts.

import { count, isForPage } from './api.js';
import { getPart, refresher, update } from './live.js';
import './said.js';

const form = document.querySelector('form[role="search"]');
const input = form.querySelector('input');
const found = document.querySelector('#found');
const none = document.querySelector('#none');

const ORDERS = {
  size: (a, b) => b.dataset.files - a.dataset.files,
  newest: (a, b) => b.dataset.newest - a.dataset.newest,
  loosest: (a, b) => b.dataset.loose - a.dataset.loose,
  name: (a, b) => a.dataset.place - b.dataset.place,
};
const tiles = () => [...document.querySelectorAll('#tiles > li')];
const empties = () => [...document.querySelectorAll('#empty li')]; // clusters without a picture, in a fold at the end
const order = () => form.querySelector('[aria-pressed="true"]').value;

function search() {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  const isFound = (tile) => words.every((word) => tile.dataset.title.includes(word));
  for (const tile of [...tiles(), ...empties()]) {
    tile.hidden = !isFound(tile);
    shown += !tile.hidden;
  }
  const fold = document.querySelector('#empty');
  if (fold) {
    fold.hidden = empties().every((one) => one.hidden);
    if (words.length && !fold.hidden) fold.open = true;
  }
  none.hidden = shown > 0 || !words.length;
  const said = words.length ? `${count(shown, 'cluster')} found` : '';
  if (found.textContent !== said) found.textContent = said; // it would be read aloud again
}

function sort() {
  const list = document.querySelector('#tiles');
  if (!list) return;
  const wanted = tiles().sort((a, b) => ORDERS[order()](a, b) || a.id.slice(1) - b.id.slice(1));
  wanted.forEach((tile, index) => { if (list.children[index] !== tile) list.insertBefore(tile, list.children[index]); });
}

function keepAddress() {
  const query = new URLSearchParams();
  if (input.value.trim()) query.set('q', input.value.trim());
  if (order() !== 'size') query.set('sort', order());
  history.replaceState(null, '', query.size ? `/?${query}` : '/');
}

form.addEventListener('submit', (event) => {
  event.preventDefault();
  const pressed = event.submitter;
  if (pressed?.name === 'sort') {
    for (const button of form.querySelectorAll('[name="sort"]')) button.setAttribute('aria-pressed', String(button === pressed));
    sort();
  }
  keepAddress();
});
input.addEventListener('input', () => { search(); keepAddress(); });
document.addEventListener('keydown', (event) => {
  if (event.key !== '/' || event.ctrlKey || !isForPage(event)) return;
  event.preventDefault();
  input.focus();
});
search();

// The first answer holds the first clusters alone; the others follow.
async function showRest() {
  const rest = document.querySelector('[data-rest]');
  if (!rest) return;
  try {
    const page = await getPart(`/parts/clusters?sort=${order()}&from=${tiles().length}`);
    const there = new Set(tiles().map((tile) => tile.id));
    const list = document.querySelector('#tiles');
    list.append(...[...page.querySelectorAll('#tiles > li')].filter((tile) => !there.has(tile.id)));
    const fold = page.querySelector('#empty');
    if (fold) rest.before(fold);
    rest.remove();
    sort();
    search();
  } catch { /* the next pulse brings all; until then there is the link */ }
}

let stamp = document.querySelector('[data-stamp]').dataset.stamp;
const refresh = refresher(() => `/parts/clusters?sort=${order()}`, (page) => {
  for (const id of ['summary', 'clusters']) update(document.querySelector(`#${id}`), page.querySelector(`#${id}`));
  sort(); // another order may have been chosen since it was asked for
  search();
});
// The first paint does not wait for what is below it.
requestAnimationFrame(() => setTimeout(showRest));
document.addEventListener('pulse', ({ detail }) => {
  if (detail.stamp === stamp) return;
  stamp = detail.stamp;
  refresh();
});
