// The proposal that waits, and the fits there were.

import { ask, count, isForPage } from './api.js';
import { refreshed } from './live.js';
import { once, tell } from './said.js';

const part = document.querySelector('#refits');
const refresh = refreshed(part, '/parts/refits');

const moved = ({ moved: files }, how = 'moved') => (files ? `; ${count(files, 'file')} ${how}` : '');
const WORDS = {
  accept: (result) => `Fit ${result.fit_id} is in force${moved(result)}`,
  reject: (result) => `Fit ${result.fit_id} was rejected`,
  rollback: (result) => `Fit ${result.in_force} is in force again${moved(result, 'moved back')}`,
  refit: (result) => (result.state === 'proposed' ? `Fit ${result.fit_id} changes much and waits for your word` : `Fitted ${count(result.n_images, 'picture')} in ${count(result.n_clusters, 'cluster')}${moved(result)}`),
};

// `move` is null for what the configuration says.
function body(verb, button) {
  if (verb === 'refit') return { n_clusters: null, dry_run: false, accept: false };
  if (verb === 'rollback') return { fit_id: null, move: null };
  const { dataset, elements: { keep, move } } = button.closest('form');
  return { fit_id: Number(dataset.fit), move: keep?.checked ? false : move?.checked || null };
}

// The fit is taken back with the files that followed it.
async function takeBack(batch) {
  const { fit_in_force: fit, left } = await ask('undo', { batch });
  const files = left.length ? `${count(left.length, 'file')} stayed: ${left[0].reason}` : 'the files are back where they were';
  tell(fit == null ? files[0].toUpperCase() + files.slice(1) : `Fit ${fit} is in force again; ${files}`);
  refresh();
}

async function decide(verb, asked) {
  tell(verb === 'refit' ? 'Fitting …' : 'The daemon is at it …');
  const result = await ask(verb, asked);
  const batch = verb !== 'rollback' && result.moved && result.batch;
  tell(WORDS[verb](result), batch ? () => takeBack(batch) : null);
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
  // Before and between the fits it says what the next one waits for, which each picture changes.
  const now = `${detail.waiting} ${detail.fit} ${detail.waiting === null ? detail.stamp : ''}`;
  if (stamp !== null && stamp !== now) refresh();
  stamp = now;
});
document.addEventListener('keydown', (event) => {
  const button = { a: 'accept', j: 'reject' }[event.key];
  if (button && isForPage(event) && !event.ctrlKey) document.querySelector(`[data-ask="${button}"]`)?.focus();
});
