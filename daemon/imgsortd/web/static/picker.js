// Chooses a cluster by typing a part of its name.

import { closeOutside, get, make, thumbnail } from './api.js';

const RECENT = 'imgsortd.recent';
const recent = () => { try { return JSON.parse(sessionStorage.getItem(RECENT)) ?? []; } catch { return []; } };
const remember = (folder) => { try { sessionStorage.setItem(RECENT, JSON.stringify([folder, ...recent().filter((one) => one !== folder)].slice(0, 8))); } catch { /* no place for it */ } };
let number = 0;

function options(grid, home) {
  const last = recent();
  const rank = (folder) => (last.includes(folder) ? last.indexOf(folder) : last.length);
  const clusters = grid.clusters.filter((one) => one.id !== home && !one.retired)
    .map((one) => ({ to: { cluster: one.id }, folder: one.folder, files: one.files, shot: one.mosaic[0], number: one.id }));
  const folders = grid.folders.map((one) => ({ to: { folder: one.name }, folder: one.name, files: one.files }));
  return [...clusters, ...folders].sort((a, b) => rank(a.folder) - rank(b.folder) || b.files - a.files);
}

// What is called exactly so comes first, then what begins so.
function matching(all, typed) {
  const wanted = typed.toLowerCase();
  const words = wanted.split(/\s+/).filter(Boolean);
  const rank = ({ folder, number }) => {
    if (folder === typed) return 0;
    const name = folder.toLowerCase();
    if (name === wanted || String(number) === wanted) return 1;
    return name.startsWith(wanted) ? 2 : 3;
  };
  return all.filter((one) => words.every((word) => one.folder.toLowerCase().includes(word) || String(one.number) === word))
    .sort((a, b) => rank(a) - rank(b));
}

function line(one, id) {
  const shot = one.shot ? make('img', { src: thumbnail(...one.shot), alt: '', width: 40, height: 40, loading: 'lazy' })
    : make('span', { class: 'blank', 'aria-hidden': 'true' }, one.isNew ? '+' : '');
  const text = one.isNew ? make('span', {}, 'New folder ', make('bdi', {}, one.folder)) : make('bdi', {}, one.folder);
  return make('li', { role: 'option', id, 'aria-selected': 'false' }, shot, text,
    make('span', { class: 'of' }, one.files == null ? '' : one.files.toLocaleString('en')));
}

// Returns {to, folder}, or null where the dialog was closed.
export async function pick(title, { home = null, onlyNew = false, review = false } = {}) {
  const before = document.activeElement;
  const id = `picker-${number += 1}`;
  const input = make('input', { class: 'field', name: 'cluster', type: 'text', role: 'combobox', 'aria-expanded': 'false', 'aria-controls': id, 'aria-autocomplete': 'list', autocomplete: 'off', spellcheck: 'false', maxlength: '200', placeholder: onlyNew ? 'Name of the folder' : 'Type a part of its name', 'aria-label': title });
  const list = make('ul', { id, role: 'listbox', 'aria-label': title });
  const dialog = make('dialog', { class: 'picker', 'aria-label': title }, make('h2', {}, title), input, list);
  let all = null; // until the server has told; what is typed meanwhile is kept
  let isHasty = false;
  let shown = [];
  let at = 0;
  let chosen = null;
  let failure = null;

  const mark = () => {
    input.setAttribute('aria-expanded', String(shown.length > 0));
    [...list.children].forEach((item, index) => item.setAttribute('aria-selected', String(index === at)));
    list.children[at]?.scrollIntoView({ block: 'nearest' });
    if (shown.length) input.setAttribute('aria-activedescendant', `${id}-${at}`);
    else input.removeAttribute('aria-activedescendant');
  };
  const fill = () => {
    if (!all) return;
    const typed = input.value.trim();
    shown = onlyNew && !typed ? [] : matching(all, typed);
    const isKnown = all.some((one) => one.folder.toLowerCase() === typed.toLowerCase());
    const fresh = { to: { folder: typed }, folder: typed, isNew: true };
    if (typed && !isKnown) shown = onlyNew ? [fresh, ...shown] : [...shown, fresh];
    at = 0;
    list.replaceChildren(...shown.map((one, index) => line(one, `${id}-${index}`)));
    mark();
  };
  const take = (index) => { chosen = shown[index] ?? null; if (chosen) dialog.close(); };

  input.addEventListener('input', fill);
  input.addEventListener('keydown', (event) => {
    if (event.isComposing) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && shown.length) {
      at = (at + step + shown.length) % shown.length;
      mark();
    } else if (event.key === 'Enter') {
      isHasty = !all;
      take(at);
    } else return;
    event.preventDefault();
  });
  list.addEventListener('click', (event) => {
    const item = event.target.closest('li');
    if (item) take([...list.children].indexOf(item));
  });
  closeOutside(dialog);
  document.body.append(dialog);
  dialog.showModal();
  get('/api/clusters').then((grid) => {
    all = options(grid, home);
    if (review) all.push({ to: { review: true }, folder: '_review', files: grid.review });
    fill();
    if (isHasty && dialog.open) take(0);
  }).catch((error) => {
    failure = error;
    dialog.close();
  });
  await new Promise((done) => dialog.addEventListener('close', done, { once: true }));
  dialog.remove();
  before?.focus?.();
  if (failure) throw failure;
  if (!chosen) return null;
  remember(chosen.folder);
  return { to: chosen.to, folder: chosen.folder };
}
