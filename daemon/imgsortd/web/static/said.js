// The bar at the foot that says what was done, and takes it back.

import { ask, CROSS, icon, make, Refused, count } from './api.js';

const text = make('p', { role: 'status', 'aria-live': 'polite' });
const undoButton = make('button', { type: 'button', class: 'button' }, 'Undo');
const closeButton = make('button', { type: 'button', class: 'icon', title: 'Close' }, icon(CROSS), make('span', { class: 'unseen' }, 'Close'));
const bar = make('div', { class: 'said', hidden: true }, text, undoButton, closeButton);
document.body.append(bar);

let undo = null;

function show(words, kind, takeBack) {
  bar.classList.toggle('wrong', kind === 'wrong');
  bar.hidden = false;
  undo = takeBack;
  undoButton.hidden = !takeBack;
  text.textContent = words;
}

export const tell = (words, undone = null) => show(words, 'fine', undone);
export const complain = (error) => {
  if (!(error instanceof Refused)) console.error(error);
  show(error.message, 'wrong', null);
};
export const hide = () => { bar.hidden = true; undo = null; };

export async function takeBack() {
  if (!undo) return;
  const doing = undo;
  undo = null;
  undoButton.hidden = true;
  try {
    await doing();
  } catch (error) {
    complain(error);
  }
}

undoButton.addEventListener('click', takeBack);
closeButton.addEventListener('click', hide);

// Moves pictures; the page has taken them away already and puts them back where that fails.
//   files: [{id, name}], to: {cluster} | {folder} | {review}, where: the folder in words
//   back(ids): puts pictures back into the page; went(result): learns of the end
export async function place(files, to, where, { back, went = () => {} }) {
  const what = files.length === 1 ? files[0].name : count(files.length, 'picture');
  show(`Moving ${what} to ${where} …`, 'fine', null);
  let result;
  try {
    result = await ask('place', { files: files.map((file) => file.id), to });
  } catch (error) {
    back(files.map((file) => file.id));
    complain(error);
    return null;
  }
  const left = result.left.map((one) => one.id);
  if (left.length) back(left);
  went(result);
  if (!result.placed) {
    complain(new Refused(`Not moved: ${result.left[0]?.reason ?? 'nothing to move'}`));
    return result;
  }
  const rest = left.length ? `; ${count(left.length, 'picture')} stayed: ${result.left[0].reason}` : '';
  const done = `Moved ${files.length === 1 ? what : count(result.placed, 'picture')} to ${result.folder}${rest}`;
  show(done, 'fine', async () => {
    show('Taking it back …', 'fine', null);
    const undone = await ask('undo', { batch: result.batch });
    back(files.map((file) => file.id).filter((id) => !left.includes(id)));
    const kept = undone.left.length ? `; ${undone.left[0].file} stayed: ${undone.left[0].reason}` : '';
    tell(`Taken back${kept}`);
  });
  return result;
}

document.addEventListener('keydown', (event) => {
  const isUndo = event.key === 'u' || (event.key === 'z' && (event.ctrlKey || event.metaKey));
  if (!isUndo || event.target.closest?.('input, textarea, [contenteditable]')) return;
  if (event.key === 'u' && (event.ctrlKey || event.metaKey || event.altKey)) return;
  if (undo) {
    event.preventDefault();
    takeBack();
  }
});
