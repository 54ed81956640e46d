// The daemon's state, kept up to date; set-aside files are tried again from here.

import { ask } from './api.js';
import { refreshed } from './live.js';
import { once, tell } from './said.js';

const part = document.querySelector('#status');
const refresh = refreshed(part, '/parts/status');
document.addEventListener('pulse', refresh);
setInterval(() => { if (!document.hidden) refresh(); }, 15000);

async function retry(file) {
  const result = await ask('retry', { files: [file] });
  tell(result.retried ? 'It is back in the inbox and is read again' : `Not tried again: ${result.left[0]?.reason}`);
}

part.addEventListener('click', async ({ target }) => {
  const button = target.closest('[data-ask="retry"]');
  if (!button) return;
  await once(button, () => retry(Number(button.dataset.file)));
  refresh();
});
