// One picture, large; its neighbours by the arrow keys.

import { BACK, CROSS, icon, make, ON, preview, thumbnail } from './api.js';

const MOST_ENLARGED = 2;
const HELD_MS = 150;

export function openPreview(wall, actions) {
  let image = make('img', { alt: '' });
  const name = make('bdi');
  const place = make('span', { class: 'quiet small' });
  const button = (label, path, action, kind = 'icon') => {
    const one = make('button', { type: 'button', class: kind, title: label }, icon(path), make('span', { class: 'unseen' }, label));
    one.addEventListener('click', action);
    return one;
  };
  const turns = {
    [-1]: button('The previous picture', BACK, () => turn(-1), 'icon turn back'),
    1: button('The next picture', ON, () => turn(1), 'icon turn on'),
  };
  const stage = make('div', { class: 'stage' }, image, turns[-1], turns[1]);
  const foot = make('footer');
  const dialog = make('dialog', { class: 'preview', 'aria-label': 'Preview' },
    make('header', {}, make('p', { role: 'status' }, name, ' ', place), button('Close', CROSS, () => dialog.close())), stage, foot);
  const similar = make('a', { class: 'button' }, make('kbd', {}, 'l'), ' Pictures like it');
  const move = make('button', { type: 'button', class: 'button' }, make('kbd', {}, 'm'), ' Move');
  const choose = make('button', { type: 'button', class: 'button', 'aria-pressed': 'false' }, make('kbd', {}, 'x'), ' ', make('span', {}, 'Select'));
  foot.append(choose, move, similar);

  let later = null;
  let isHeld = false;
  let at = wall.at; // the browser gives the focus back to where it was, and the wall follows it
  const shot = () => wall.shots[wall.at];
  const fit = () => {
    const { w, h } = shot();
    const [width, height] = w && h ? [w, h] : [image.naturalWidth || 4000, image.naturalHeight || 3000];
    const room = getComputedStyle(stage);
    const wide = stage.clientWidth - parseFloat(room.paddingLeft) - parseFloat(room.paddingRight);
    const scale = Math.min(wide / width, stage.clientHeight / height, MOST_ENLARGED);
    image.style.width = `${width * scale}px`;
    image.style.height = `${height * scale}px`;
  };
  const mark = () => {
    const isChosen = wall.chosen.has(shot().id);
    choose.setAttribute('aria-pressed', String(isChosen));
    choose.lastElementChild.textContent = isChosen ? 'Selected' : 'Select';
  };
  const show = () => {
    const one = shot();
    at = wall.at;
    if (!one) return dialog.close();
    // A picture of its own each time: until it has come, the one before would stand in its place.
    const fresh = make('img', { alt: wall.label(one) });
    if (!image.complete) image.removeAttribute('src');
    image.replaceWith(fresh);
    image = fresh;
    image.addEventListener('load', fit);
    image.addEventListener('error', () => { if (image === fresh) place.textContent += ', and cannot be shown large'; });
    image.style.backgroundImage = `url("${thumbnail(one.id, one.key)}")`;
    clearTimeout(later); // while a key is held, the thumbnails do
    later = setTimeout(load, isHeld ? HELD_MS : 0);
    name.textContent = one.name;
    place.textContent = `${(wall.at + 1).toLocaleString('en')} of ${wall.total.toLocaleString('en')}`;
    similar.href = `/similar/${one.id}`;
    mark();
    fit();
    for (const step of [-1, 1]) turns[step].setAttribute('aria-disabled', String(!wall.shots[wall.at + step]));
  };
  const load = () => {
    image.src = preview(shot().id, shot().key);
    const next = wall.shots[wall.at + 1];
    if (next) new Image().src = preview(next.id, next.key);
  };
  const turn = (step) => {
    const to = wall.at + step;
    if (to < 0 || to >= wall.shots.length) return;
    wall.at = to;
    show();
  };
  const toggle = () => { wall.toggle(wall.at); mark(); };
  const doMove = () => actions.move([shot()]);

  choose.addEventListener('click', toggle);
  move.addEventListener('click', doMove);
  dialog.addEventListener('keydown', (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    isHeld = event.repeat;
    const keys = { ArrowLeft: () => turn(-1), ArrowRight: () => turn(1), x: toggle, m: doMove, l: () => location.assign(similar.href) };
    if (event.key === ' ' && !event.target.closest('button, a')) keys[' '] = () => dialog.close();
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  addEventListener('resize', fit);
  wall.addEventListener('changed', show); // a picture was moved, or is back
  dialog.addEventListener('close', () => {
    removeEventListener('resize', fit);
    clearTimeout(later);
    wall.removeEventListener('changed', show);
    actions.showIn(document.body);
    dialog.remove();
    wall.focus(at);
  });
  document.body.append(dialog);
  dialog.showModal();
  actions.showIn(dialog);
  dialog.tabIndex = -1;
  dialog.focus();
  show();
}
