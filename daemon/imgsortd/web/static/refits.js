// The proposal that waits, and the fits there were.

import { ask, isForPage, make } from './api.js';
import { morph, refresher } from './live.js';
import { complain, tell } from './said.js';

const part = document.querySelector('#refits');

const refresh = refresher(() => '/parts/refits', (body) => {
  const fresh = make('div', { id: 'refits' });
  fresh.append(...body.childNodes);
  morph(part, fresh);
});

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

part.addEventListener('click', async (event) => {
  const button = event.target.closest('[data-ask]');
  if (!button) return;
  const verb = button.dataset.ask;
  button.disabled = true;
  tell(verb === 'refit' ? 'Fitting …' : 'The daemon is at it …');
  try {
    const result = await ask(verb, body(verb, button));
    const batch = result.moved && result.batch;
    tell(WORDS[verb](result), batch ? async () => { await ask('undo', { batch }); tell('The files are back where they were'); } : null);
  } catch (error) {
    complain(error);
  }
  button.disabled = false;
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
