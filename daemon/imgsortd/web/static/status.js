// The daemon's state, kept up to date; set-aside files are tried again from here.

import { ask, make } from './api.js';
import { morph, refresher } from './live.js';
import { complain, tell } from './said.js';

const part = document.querySelector('#status');
const refresh = refresher(() => '/parts/status', (body) => {
  const fresh = make('div', { id: 'status' });
  fresh.append(...body.childNodes);
  morph(part, fresh);
});
document.addEventListener('pulse', refresh);
setInterval(() => { if (!document.hidden) refresh(); }, 15000);

part.addEventListener('click', async (event) => {
  const button = event.target.closest('[data-ask="retry"]');
  if (!button) return;
  button.disabled = true;
  try {
    const result = await ask('retry', { files: [Number(button.dataset.file)] });
    tell(result.retried ? 'It is back in the inbox and is read again' : `Not tried again: ${result.left[0]?.reason}`);
  } catch (error) {
    complain(error);
  }
  button.disabled = false;
  refresh();
});
