// The proposal that waits, and the fits there were.

import { ask, isForPage } from './api.js';
import { refreshed } from './live.js';
import { once, tell } from './said.js';

const part = document.querySelector('#refits');
const refresh = refreshed(part, '/parts/refits');

const WORDS = {
  accept: (result) => `Fit ${result.fit_id} is in force${result.moved ? `; ${result.moved.toLocaleString('en')} files moved` : ''}`,
  reject: (result) => `Fit ${result.fit_id} was rejected`,
  rollback: (result) => `Fit ${result.in_force} is in force again`,
  refit: (result) => (result.state === 'proposed' ? `Fit ${result.fit_id} changes much and waits for your word` : `Fitted ${result.n_images.toLocaleString('en')} pictures in ${result.n_clusters} clusters`),
};

function body(verb, button) {
  const form = button.closest('form');
  const move = Boolean(form?.elements.move?.checked);
  if (verb === 'refit') return { n_clusters: null, dry_run: false, accept: false };
  if (verb === 'rollback') return { fit_id: null, move: false };
  return { fit_id: Number(form.dataset.fit), move };
}

async function decide(verb, asked) {
  tell(verb === 'refit' ? 'Fitting …' : 'The daemon is at it …');
  const result = await ask(verb, asked);
  const batch = result.moved && result.batch;
  tell(WORDS[verb](result), batch ? async () => { await ask('undo', { batch }); tell('The files are back where they were'); } : null);
}

part.addEventListener('click', async ({ target }) => {
  const button = target.closest('[data-ask]');
  if (!button) return;
  const verb = button.dataset.ask;
  await once(button, () => decide(verb, body(verb, button)));
  refresh();
});
document.addEventListener('submit', (event) => event.preventDefault());

let stamp = null;
document.addEventListener('pulse', ({ detail }) => {
  const now = `${detail.waiting} ${detail.fit}`;
  if (stamp !== null && stamp !== now) refresh();
  stamp = now;
});
document.addEventListener('keydown', (event) => {
  const button = { a: 'accept', j: 'reject' }[event.key];
  if (button && isForPage(event) && !event.ctrlKey) document.querySelector(`[data-ask="${button}"]`)?.focus();
});
