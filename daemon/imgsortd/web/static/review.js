// One picture at a time. A key answers at once; the daemon's answer is awaited behind it.

import { count, get, isForPage, make, preview, thumbnail } from './api.js';
import { help } from './help.js';
import './live.js';
import { pick } from './picker.js';
import { complain, place } from './said.js';

const AHEAD = 3;
const FEW = 6;
const page = document.querySelector('#review');
const image = document.querySelector('#picture');
const name = document.querySelector('#name');
const reason = document.querySelector('#reason');
const told = document.querySelector('#told');
const left = document.querySelector('[data-left]');
const doneText = document.querySelector('[data-done]');
const buttons = [...document.querySelectorAll('[data-answer]')];

let queue = [];
let next = null;
let isWhole = false;
let total = 0;
let done = 0;
let busy = null;
const seen = new Set();

async function fill() {
  if (isWhole || queue.length >= FEW || busy) return busy;
  busy = (async () => {
    const more = await get(`/api/review?limit=20${next === null ? '' : `&after=${next}`}`);
    total = next === null ? more.total : total;
    next = more.next;
    isWhole = next === null;
    queue.push(...more.pictures.filter((one) => !seen.has(one.id)));
    more.pictures.forEach((one) => seen.add(one.id));
  })();
  try {
    await busy;
  } finally {
    busy = null;
  }
}

function mosaic(shots) {
  const box = make('span', { class: 'mosaic', 'data-n': String(shots.length) });
  box.append(...shots.map(([id, key]) => make('img', { src: thumbnail(id, key), alt: '', width: 64, height: 64, decoding: 'async' })));
  return box;
}

function show() {
  const shot = queue[0];
  page.hidden = !shot;
  document.querySelector('#none').hidden = Boolean(shot);
  left.textContent = `${count(Math.max(0, total - done), 'picture')} to look at`;
  doneText.textContent = done ? `, ${done.toLocaleString('en')} answered` : '';
  if (!shot) return;
  image.hidden = false;
  image.alt = shot.name;
  image.src = preview(shot.id, shot.key);
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

async function advance() {
  queue.shift();
  show();
  try {
    await fill();
  } catch (error) {
    complain(error);
  }
  if (!queue.length || page.hidden) show();
}

function answer(to, where) {
  const shot = queue[0];
  if (!shot) return;
  done += 1;
  advance();
  place([shot], to, where, {
    back: () => {
      done -= 1;
      queue = [shot, ...queue.filter((one) => one.id !== shot.id)];
      show();
    },
  });
}

function skip() {
  if (queue[0]) advance();
}

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
image.addEventListener('error', () => { reason.textContent = `${queue[0]?.reason ?? ''} (the picture cannot be shown)`; });
help([
  [['1', '2', '3'], 'the cluster with that number'],
  [['m'], 'another cluster, by its name'],
  [['n'], 'a new folder'],
  [['s'], 'skip: ask again another time'],
  [['r'], 'leave it in _review for good'],
  [['l'], 'pictures like it'],
  [['u'], 'undo the last answer; again, the one before'],
]);
fill().then(show, complain);
