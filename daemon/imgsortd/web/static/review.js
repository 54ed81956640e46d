// One picture at a time. A key answers at once; the daemon's answer is awaited behind it.

import { count, get, isForPage, make, preview, thumbnail } from './api.js';
import { help } from './help.js';
import './live.js';
import { pick } from './picker.js';
import { complain, place } from './said.js';

const AHEAD = 3;
const FEW = 6;
const page = document.querySelector('#review');
const none = document.querySelector('#none');
const [title, words, again] = none.children;
const name = document.querySelector('#name');
const reason = document.querySelector('#reason');
const told = document.querySelector('#told');
const left = document.querySelector('[data-left]');
const doneText = document.querySelector('[data-done]');
const buttons = [...document.querySelectorAll('[data-answer]')];

let queue = [];
let skipped = [];
let next = null;
let isWhole = false;
let isFirstRound = true;
let isFilling = false;
let hasShown = false;
let total = null;
let done = 0;
const seen = new Set();

// Reads on before the queue is at its end. Where that fails, the next pulse tries again.
async function fill() {
  if (isFilling) return;
  isFilling = true;
  try {
    while (!isWhole && queue.length < FEW) await read();
  } catch (error) {
    complain(error);
  }
  isFilling = false;
  if (page.hidden || !hasShown) show();
}

async function read() {
  const more = await get(`/api/review?limit=20${next === null ? '' : `&after=${next}`}`);
  const fresh = more.pictures.filter((one) => !seen.has(one.id));
  fresh.forEach((one) => seen.add(one.id));
  queue.push(...fresh);
  total = isFirstRound ? total ?? more.total : total + fresh.length;
  next = more.next;
  if (next !== null) return;
  isWhole = true;
  isFirstRound = false;
}

function mosaic(shots) {
  const box = make('span', { class: 'mosaic', 'data-n': String(shots.length) });
  box.append(...shots.map(([id, key]) => make('img', { src: thumbnail(id, key), alt: '', width: 64, height: 64, decoding: 'async' })));
  return box;
}

function showNone() {
  const isMore = isFirstRound; // in later ones there may be more, but hardly ever is
  title.textContent = isMore ? 'One moment …' : skipped.length ? `${count(skipped.length, 'picture')} skipped` : 'Nothing to review';
  words.hidden = isMore || skipped.length > 0;
  again.hidden = isMore || !skipped.length;
  if (told.textContent !== title.textContent) told.textContent = title.textContent;
}

function showCounts() {
  left.textContent = `${count(Math.max(queue.length, total - done), 'picture')} to look at`;
  doneText.textContent = done ? `, ${done.toLocaleString('en')} answered` : '';
}

function show() {
  const shot = queue[0];
  const hadFocus = page.contains(document.activeElement);
  page.hidden = !shot;
  none.hidden = Boolean(shot);
  hasShown = isWhole || Boolean(shot);
  if (!shot) showNone();
  if (!shot && hadFocus) document.querySelector('#main').focus();
  showCounts();
  if (!shot) return;
  showPicture(shot);
  name.textContent = shot.name;
  reason.textContent = shot.reason;
  buttons.forEach((button, index) => {
    const one = shot.likeliest[index];
    button.disabled = !one;
    const [, box, text] = button.children;
    box.replaceWith(mosaic(one?.mosaic ?? []));
    text.querySelector('bdi').textContent = one?.folder ?? 'no other cluster';
    text.querySelector('.quiet').textContent = one ? `distance ${one.distance.toFixed(3)}` : '';
  });
  told.textContent = `${shot.name}. ${shot.likeliest.map((one, index) => `${index + 1}: ${one.folder}`).join(', ')}`;
  for (const one of queue.slice(1, 1 + AHEAD)) new Image().src = preview(one.id, one.key);
}

// An element of its own each time: until the next picture has come, the one before would stand there.
function showPicture(shot) {
  const image = make('img', { id: 'picture', alt: shot.name, width: 1600, height: 1200 });
  image.addEventListener('error', () => {
    if (queue[0] === shot) reason.textContent = `${shot.reason} (the picture cannot be shown)`;
  });
  image.src = preview(shot.id, shot.key);
  document.querySelector('#picture').replaceWith(image);
}

function advance() {
  const shot = queue.shift();
  show();
  fill();
  return shot;
}

function answer(to, where) {
  if (!queue.length) return;
  done += 1;
  const shot = advance();
  place([shot], to, where, {
    // What one is about to answer stays: a picture that could not be moved comes after it.
    back: (_, isUndo) => {
      done -= 1;
      queue.splice(isUndo ? 0 : 1, 0, shot);
      if (queue[0] === shot) show();
      else showCounts();
    },
  });
}

function skip() {
  if (queue.length) skipped.push(advance());
  if (!queue.length) show();
}

again.addEventListener('click', () => {
  queue.push(...skipped);
  skipped = [];
  show();
  buttons[0].focus();
});

async function choose(options) {
  const shot = queue[0];
  if (!shot) return;
  try {
    const title = options.onlyNew ? `A new folder for ${shot.name}` : `Move ${shot.name} to`;
    const chosen = await pick(title, options);
    if (chosen && queue[0] === shot) answer(chosen.to, chosen.folder);
  } catch (error) {
    complain(error);
  }
}

function likeliest(number) {
  const one = queue[0]?.likeliest[number - 1];
  if (one) answer({ cluster: one.cluster }, one.folder);
}

const does = {
  1: () => likeliest(1),
  2: () => likeliest(2),
  3: () => likeliest(3),
  m: () => choose({}),
  n: () => choose({ onlyNew: true }),
  s: skip,
  r: () => answer({ review: true }, '_review'),
  l: () => { if (queue[0]) location.assign(`/similar/${queue[0].id}`); },
};
const names = { other: 'm', new: 'n', skip: 's', keep: 'r' };

buttons.forEach((button) => button.addEventListener('click', () => likeliest(Number(button.dataset.answer))));
for (const button of document.querySelectorAll('[data-do]')) {
  const key = names[button.dataset.do];
  if (key) button.addEventListener('click', does[key]);
}
document.addEventListener('keydown', (event) => {
  if (!isForPage(event) || event.ctrlKey || event.repeat || !does[event.key]) return;
  event.preventDefault();
  does[event.key]();
});
help([
  [['1', '2', '3'], 'the cluster with that number'],
  [['m'], 'another cluster, by its name'],
  [['n'], 'a new folder'],
  [['s'], 'skip: ask again another time'],
  [['r'], 'leave it in _review for good'],
  [['l'], 'pictures like it'],
  [['u'], 'undo the last answer; again, the one before'],
]);
// More may have come, or the server can be reached again.
document.addEventListener('pulse', ({ detail }) => {
  if (isWhole && detail.review > total - done) isWhole = false;
  fill();
});
fill();
