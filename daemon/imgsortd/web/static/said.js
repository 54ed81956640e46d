// The bar at the foot that says what was done, and takes it back.

import { ask, CROSS, icon, make, Refused, count } from './api.js';

const text = make('p');
// A screen reader tells what changes only where it knew the place before; the bar may be hidden.
const spoken = make('p', { role: 'status', class: 'unseen' });
const undoButton = make('button', { type: 'button', class: 'button' }, 'Undo');
const closeButton = make('button', { type: 'button', class: 'icon', title: 'Close' }, icon(CROSS), make('span', { class: 'unseen' }, 'Close'));
const bar = make('div', { class: 'said', hidden: true }, text, undoButton, closeButton);
document.body.append(bar, spoken);

const AT_ONCE = 2000;
const KEPT = 50;
const LONG_MS = 8000;
const undos = []; // in the order of the deeds: what takes each back, or a promise of that
let cameFrom = null;

function show(words, kind, nextUndo = 'Undo the one before') {
  bar.classList.toggle('wrong', kind === 'wrong');
  bar.hidden = false;
  text.textContent = words;
  if (kind !== 'busy') spoken.textContent = words;
  undoButton.textContent = nextUndo;
  offer();
}

function offer() {
  if (document.activeElement === undoButton && !undos.length) closeButton.focus();
  undoButton.hidden = !undos.length;
}

function keep(undo) {
  undos.push(undo);
  if (undos.length > KEPT) undos.shift();
  undo.then?.((found) => {
    if (found || !undos.includes(undo)) return;
    undos.splice(undos.indexOf(undo), 1); // it failed, or there is nothing to take back
    offer();
  });
}

// Says that something goes on, and if that takes long, that nothing has come of it yet.
function showBusy(words, nextUndo) {
  show(words, 'busy', nextUndo);
  setTimeout(() => { if (text.textContent === words) show(`${words} The daemon has not answered yet.`, 'fine'); }, LONG_MS);
}

export function tell(words, undo = null) {
  if (undo) keep(undo);
  show(words, 'fine', undo ? 'Undo' : undefined);
}
export const complain = (error) => {
  if (!(error instanceof Refused)) console.error(error);
  show(error.message, 'wrong');
};

// Does what a button is for, once at a time; were it disabled meanwhile, it would lose the focus.
export async function once(button, deed) {
  if (button.getAttribute('aria-disabled') === 'true') return;
  button.setAttribute('aria-disabled', 'true');
  try {
    await deed();
  } catch (error) {
    complain(error);
  }
  button.removeAttribute('aria-disabled');
}

// Shows the bar within a dialog that covers all else, or where it was.
export const showIn = (place) => place.append(bar, spoken);

// Takes the last deed back; again, and it is the one before that. One that is still being done is
// waited for: whoever asks means that one. What cannot be taken back just now is kept for later.
async function takeBack() {
  const deed = undos.pop();
  if (!deed) return;
  showBusy('Taking it back …');
  const undo = await deed;
  try {
    await undo?.();
  } catch (error) {
    if (error.isPassing) keep(undo);
    complain(error);
  }
}

undoButton.addEventListener('click', takeBack);
bar.addEventListener('focusin', ({ relatedTarget }) => { if (!bar.contains(relatedTarget)) cameFrom = relatedTarget; });
closeButton.addEventListener('click', () => {
  bar.hidden = true;
  (cameFrom?.isConnected ? cameFrom : document.querySelector('#main')).focus({ preventScroll: true });
});

// Asks for a move in parts, for a request holds so many pictures at most; where a later part fails
// the earlier ones are done, and can be taken back.
async function askInParts(files, to) {
  const whole = { placed: 0, left: [], batches: [], folder: '', failed: null };
  for (let start = 0; start < files.length; start += AT_ONCE) {
    const part = files.slice(start, start + AT_ONCE);
    if (start) showBusy(`Moved ${count(whole.placed, 'picture')} of ${files.length.toLocaleString('en')} …`);
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
//   back(ids, isUndo): puts pictures back into the page
export function place(files, to, where, { back }) {
  const what = files.length === 1 ? files[0].name : count(files.length, 'picture');
  keep(move(files, to, what, back).catch(complain));
  showBusy(`Moving ${what} to ${where} …`, 'Undo');
}

async function move(files, to, what, back) {
  if (files.length > AT_ONCE) addEventListener('beforeunload', stayHere);
  const { placed, left, batches, folder, failed } = await askInParts(files, to);
  removeEventListener('beforeunload', stayHere);
  const stayed = new Set(left.map((one) => one.id));
  if (stayed.size) back([...stayed], false);
  if (!placed) {
    complain(failed ?? new Refused(`Not moved: ${left[0]?.reason ?? 'nothing to move'}`));
    return null;
  }
  const rest = stayed.size ? `; ${count(stayed.size, 'picture')} stayed: ${left[0].reason}` : '';
  const whose = files.length === 1 ? what : count(placed, 'picture');
  if (!batches.length) { // no file had to move: what stood there already is meant to stay
    show(`${whose} stays in ${folder}${rest}`, 'fine');
    return null;
  }
  show(`Moved ${whose} to ${folder}${rest}`, failed ? 'wrong' : 'fine', 'Undo');
  return async () => {
    let kept = '';
    while (batches.length) {
      const undone = await ask('undo', { batch: batches.at(-1) });
      batches.pop();
      if (undone.left.length) kept = `; ${undone.left[0].file} stayed: ${undone.left[0].reason}`;
    }
    back(files.map((file) => file.id).filter((id) => !stayed.has(id)), true);
    tell(`Taken back${kept}`);
  };
}

// The parts that were not asked for yet would not be moved.
const stayHere = (event) => event.preventDefault();

document.addEventListener('keydown', (event) => {
  const isUndo = event.key === 'u' || (event.key === 'z' && (event.ctrlKey || event.metaKey));
  if (!isUndo || event.target.closest?.('input, textarea, [contenteditable]')) return;
  if (event.key === 'u' && (event.ctrlKey || event.metaKey || event.altKey)) return;
  if (!undos.length) return;
  event.preventDefault();
  takeBack();
});
