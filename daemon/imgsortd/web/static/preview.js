// One picture, large; its neighbours by the arrow keys.

import { BACK, CROSS, icon, make, ON, preview, thumbnail } from './api.js';

const MOST_ENLARGED = 2;

export function openPreview(wall, actions) {
  const image = make('img', { alt: '', decoding: 'async' });
  const name = make('bdi');
  const place = make('span', { class: 'quiet small' });
  const button = (label, path, action, kind = 'icon') => {
    const one = make('button', { type: 'button', class: kind, title: label }, icon(path), make('span', { class: 'unseen' }, label));
    one.addEventListener('click', action);
    return one;
  };
  const stage = make('div', { class: 'stage' }, image,
    button('The previous picture', BACK, () => turn(-1), 'icon turn back'), button('The next picture', ON, () => turn(1), 'icon turn on'));
  const foot = make('footer');
  const dialog = make('dialog', { class: 'preview', 'aria-label': 'Preview' },
    make('header', {}, make('p', {}, name, ' ', place), button('Close', CROSS, () => dialog.close())), stage, foot);
  const similar = make('a', { class: 'button' }, make('kbd', {}, 'l'), ' Pictures like it');
  const move = make('button', { type: 'button', class: 'button' }, make('kbd', {}, 'm'), ' Move');
  const choose = make('button', { type: 'button', class: 'button', 'aria-pressed': 'false' }, make('kbd', {}, 'x'), ' ', make('span', {}, 'Select'));
  foot.append(choose, move, similar);

  let at = wall.at; // the browser gives the focus back to where it was, and the wall follows it
  const shot = () => wall.shots[wall.at];
  const fit = () => {
    const { w, h } = shot();
    const [width, height] = w && h ? [w, h] : [image.naturalWidth || 4, image.naturalHeight || 3];
    const room = getComputedStyle(stage);
    const wide = stage.clientWidth - parseFloat(room.paddingLeft) - parseFloat(room.paddingRight);
    const scale = Math.min(wide / width, stage.clientHeight / height, MOST_ENLARGED);
    image.style.width = `${width * scale}px`;
    image.style.height = `${height * scale}px`;
  };
  const show = () => {
    const one = shot();
    at = wall.at;
    if (!one) return dialog.close();
    image.alt = wall.label(one);
    image.style.backgroundImage = `url("${thumbnail(one.id, one.key)}")`;
    image.src = preview(one.id, one.key);
    name.textContent = one.name;
    place.textContent = `${(wall.at + 1).toLocaleString('en')} of ${wall.total.toLocaleString('en')}`;
    similar.href = `/similar/${one.id}`;
    const isChosen = wall.chosen.has(one.id);
    choose.setAttribute('aria-pressed', String(isChosen));
    choose.lastElementChild.textContent = isChosen ? 'Selected' : 'Select';
    fit();
    const ahead = wall.shots[wall.at + 1];
    if (ahead) new Image().src = preview(ahead.id, ahead.key);
  };
  const turn = (step) => {
    const to = wall.at + step;
    if (to < 0 || to >= wall.shots.length) return;
    wall.at = to;
    show();
  };
  const toggle = () => { wall.toggle(wall.at); show(); };
  const doMove = async () => { if (await actions.move([shot()])) show(); };

  image.addEventListener('load', fit);
  choose.addEventListener('click', toggle);
  move.addEventListener('click', doMove);
  dialog.addEventListener('keydown', (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest('.picker')) return;
    const keys = { ArrowLeft: () => turn(-1), ArrowRight: () => turn(1), x: toggle, m: doMove, l: () => location.assign(similar.href) };
    if (event.key === ' ' && !event.target.closest('button, a')) keys[' '] = () => dialog.close();
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  const onResize = () => fit();
  addEventListener('resize', onResize);
  dialog.addEventListener('close', () => {
    removeEventListener('resize', onResize);
    dialog.remove();
    wall.focus(at);
  });
  document.body.append(dialog);
  dialog.showModal();
  dialog.tabIndex = -1;
  dialog.focus();
  show();
}
