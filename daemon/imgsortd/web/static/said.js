// The bar at the foot that says what was done, and takes it back.

import { ask, CROSS, icon, make, Refused, count } from './api.js';

const text = make('p', { role: 'status', 'aria-live': 'polite' });
const undoButton = make('button', { type: 'button', class: 'button' }, 'Undo');
const closeButton = make('button', { type: 'button', class: 'icon', title: 'Close' }, icon(CROSS), make('span', { class: 'unseen' }, 'Close'));
const bar = make('div', { class: 'said', hidden: true }, text, undoButton, closeButton);
document.body.append(bar);

const AT_ONCE = 2000;
const KEPT = 50;
const undos = [];

function show(words, kind, undo = null) {
  bar.classList.toggle('wrong', kind === 'wrong');
  bar.hidden = false;
  if (undo) undos.push(undo);
  if (undos.length > KEPT) undos.shift();
  text.textContent = words;
  offer(undo ? 'Undo' : 'Undo the one before');
}

function offer(words) {
  undoButton.hidden = !undos.length;
  undoButton.textContent = words;
}

export const tell = (words, undo = null) => show(words, 'fine', undo);
export const complain = (error) => {
  if (!(error instanceof Refused)) console.error(error);
  show(error.message, 'wrong');
};

// Takes the last action back; again, and it is the one before that.
async function takeBack() {
  const undo = undos.pop();
  if (!undo) return;
  show('Taking it back …', 'fine');
  undoButton.hidden = true;
  try {
    await undo();
  } catch (error) {
    complain(error);
  }
}

undoButton.addEventListener('click', takeBack);
closeButton.addEventListener('click', () => { bar.hidden = true; });

// Asks for a move in parts, for a request holds so many pictures at most; where a later part fails
// the earlier ones are done, and can be taken back.
async function askInParts(files, to) {
  const whole = { placed: 0, left: [], batches: [], folder: '', failed: null };
  for (let start = 0; start < files.length; start += AT_ONCE) {
    const part = files.slice(start, start + AT_ONCE);
    if (start) show(`Moved ${count(whole.placed, 'picture')} of ${files.length.toLocaleString('en')} …`, 'fine');
    try {
      const result = await ask('place', { files: part.map((file) => file.id), to });
      whole.placed += result.placed;
      whole.left.push(...result.left);
      whole.folder = result.folder;
      if (result.batch !== null) whole.batches.push(result.batch);
    } catch (error) {
      whole.failed = error;
      whole.left.push(...files.slice(start).map(({ id, name }) => ({ id, file: name, reason: error.message })));
      break;
    }
  }
  return whole;
}

// Moves pictures; the page has taken them away already and puts them back where that fails.
//   files: [{id, name}], to: {cluster} | {folder} | {review}, where: the folder in words
//   back(ids): puts pictures back into the page
export async function place(files, to, where, { back }) {
  const what = files.length === 1 ? files[0].name : count(files.length, 'picture');
  show(`Moving ${what} to ${where} …`, 'fine');
  const { placed, left, batches, folder, failed } = await askInParts(files, to);
  const stayed = new Set(left.map((one) => one.id));
  if (stayed.size) back([...stayed]);
  if (!placed) {
    complain(failed ?? new Refused(`Not moved: ${left[0]?.reason ?? 'nothing to move'}`));
    return;
  }
  const rest = stayed.size ? `; ${count(stayed.size, 'picture')} stayed: ${left[0].reason}` : '';
  const whose = files.length === 1 ? what : count(placed, 'picture');
  if (!batches.length) { // no file had to move: what stood there already is meant to stay
    show(`${whose} stays in ${folder}${rest}`, 'fine');
    return;
  }
  show(`Moved ${whose} to ${folder}${rest}`, failed ? 'wrong' : 'fine', async () => {
    let kept = '';
    for (const batch of batches.reverse()) {
      const undone = await ask('undo', { batch });
      if (undone.left.length) kept = `; ${undone.left[0].file} stayed: ${undone.left[0].reason}`;
    }
    back(files.map((file) => file.id).filter((id) => !stayed.has(id)));
    tell(`Taken back${kept}`);
  });
}

document.addEventListener('keydown', (event) => {
  const isUndo = event.key === 'u' || (event.key === 'z' && (event.ctrlKey || event.metaKey));
  if (!isUndo || event.target.closest?.('input, textarea, [contenteditable]')) return;
  if (event.key === 'u' && (event.ctrlKey || event.metaKey || event.altKey)) return;
  if (!undos.length) return;
  event.preventDefault();
  takeBack();
});
