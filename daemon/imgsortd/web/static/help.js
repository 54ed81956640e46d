// The keys of a page, on `?`.

import { closeOutside, CROSS, icon, isForPage, make } from './api.js';

export function help(keys) {
  const rows = keys.flatMap(([names, text]) => [
    make('dt', {}, ...names.flatMap((name, index) => (index ? [' ', make('kbd', {}, name)] : [make('kbd', {}, name)]))),
    make('dd', {}, text),
  ]);
  const close = make('button', { type: 'button', class: 'icon', title: 'Close' }, icon(CROSS), make('span', { class: 'unseen' }, 'Close'));
  const dialog = make('dialog', { class: 'help', 'aria-label': 'Keys' },
    make('div', { class: 'title' }, make('h2', { class: 'grow' }, 'Keys'), close), make('dl', {}, ...rows));
  close.addEventListener('click', () => dialog.close());
  closeOutside(dialog);
  document.body.append(dialog);
  const open = () => dialog.showModal();
  document.querySelector('[data-do="help"]')?.addEventListener('click', open);
  document.addEventListener('keydown', (event) => {
    if (event.key === '?' && isForPage(event)) {
      event.preventDefault();
      open();
    }
  });
}
