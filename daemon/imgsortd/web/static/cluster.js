// The page of one cluster.

import { ask, count, get, isForPage, make } from './api.js';
import { lastPulse } from './live.js';
import { complain, tell } from './said.js';
import { handle, KEYS } from './shots.js';
import { Wall } from './wall.js';

const element = document.querySelector('#wall');
const none = document.querySelector('#none');
const total = document.querySelector('[data-total]');
const home = Number(element.dataset.home);
const read = ({ total: all, pictures, next }) => ({
  total: all,
  next,
  shots: pictures.map(([id, key, w, h, name, pinned]) => ({ id, key, w, h, name, pinned })),
});

const wall = new Wall(element, { read });
const onChange = () => {
  total.textContent = count(wall.total, 'picture');
  none.hidden = wall.total > 0;
};
handle(wall, { home, keys: [...KEYS, [['F2'], 'rename the cluster']], onChange });

// --- the name ------------------------------------------------------------------------------------

const title = document.querySelector('#title');
const heading = title.querySelector('[data-title]');

async function rename(name, isUndo = false) {
  const before = title.dataset.name;
  const { folder } = await ask('rename', { cluster_id: home, name });
  heading.textContent = folder;
  title.dataset.name = name;
  document.title = `${folder} · imgsortd`;
  element.setAttribute('aria-label', `Pictures of ${folder}`);
  tell(`Renamed to ${folder}`, isUndo ? null : () => rename(before, true));
}

function edit() {
  if (title.querySelector('form')) return;
  const input = make('input', { class: 'field', name: 'name', type: 'text', value: title.dataset.name, 'aria-label': 'Name of the cluster', maxlength: '200', autocomplete: 'off', spellcheck: 'false', placeholder: `cluster_${home}` });
  const form = make('form', {}, input, make('button', { class: 'button main' }, 'Save'), make('button', { class: 'button', type: 'button' }, 'Cancel'));
  const rest = [...title.children];
  let isAsking = false;
  const end = () => {
    if (!form.isConnected) return;
    form.remove();
    rest.forEach((one) => { one.hidden = false; });
    title.querySelector('[data-do="rename"]').focus();
  };
  rest.forEach((one) => { one.hidden = true; });
  title.append(form);
  input.focus();
  input.select();
  form.lastElementChild.addEventListener('click', end);
  form.addEventListener('keydown', (event) => { if (event.key === 'Escape') end(); });
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const name = input.value.trim();
    if (name === title.dataset.name) return end();
    if (isAsking) return null;
    isAsking = true;
    try {
      await rename(name);
      end();
    } catch (error) {
      complain(error);
      input.focus();
    }
    isAsking = false;
    return null;
  });
}

title.querySelector('[data-do="rename"]').addEventListener('click', edit);
document.addEventListener('keydown', (event) => {
  if (event.key !== 'F2' || !isForPage(event)) return;
  event.preventDefault();
  edit();
});

// --- pictures that come while one looks ---------------------------------------------------------------

const more = make('button', { type: 'button', class: 'button', hidden: true });
document.querySelector('.head .tools').prepend(more);
more.addEventListener('click', () => location.reload());
let stamp = null;
let isAsking = false;
document.addEventListener('pulse', async ({ detail }) => {
  const isFirst = stamp === null;
  if (detail.stamp === stamp || isAsking) return;
  stamp = detail.stamp;
  if (isFirst) return;
  isAsking = true;
  try {
    const url = new URL(element.dataset.source, location.href);
    url.searchParams.set('limit', 1);
    const now = await get(url.pathname + url.search);
    const extra = now.total - wall.total;
    more.hidden = extra <= 0;
    more.textContent = `Show ${count(extra, 'new picture')}`;
  } catch { /* the next pulse asks again */ }
  setTimeout(() => { isAsking = false; if (lastPulse()?.stamp !== stamp) stamp = ''; }, 4000);
});
