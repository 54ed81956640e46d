// A wall's pictures and what one does with them: the same on each page that has one.

import { count, icon, CROSS, isForPage, make } from './api.js';
import { help } from './help.js';
import { pick } from './picker.js';
import { openPreview } from './preview.js';
import { complain, place, showIn } from './said.js';

export const KEYS = [
  [['←', '→', '↑', '↓'], 'go to another picture'],
  [['Space'], 'look at it'],
  [['x'], 'select it; with Shift and the arrows, a range'],
  [['m'], 'move it, or what is selected, to another cluster'],
  [['l'], 'pictures like it'],
  [['u'], 'undo the last move; again, the one before'],
  [['Esc'], 'select nothing'],
];

export function handle(wall, { home = null, keys = KEYS, onChange = () => {} } = {}) {
  const words = make('span', { role: 'status' });
  const bar = make('div', { class: 'chosen', hidden: true }, words);
  document.body.append(bar);

  async function move(shots) {
    if (!shots.length) return false;
    const title = shots.length === 1 ? `Move ${shots[0].name} to` : `Move ${count(shots.length, 'picture')} to`;
    let chosen;
    try {
      chosen = await pick(title, { home, review: true });
    } catch (error) {
      complain(error);
      return false;
    }
    if (!chosen) return false;
    wall.take(shots.map((shot) => shot.id));
    onChange();
    goTo(wall.at);
    place(shots, chosen.to, chosen.folder, { back: giveBack });
    return true;
  }

  // Puts the focus onto a picture, unless it is busy elsewhere.
  function goTo(index) {
    if (document.querySelector('dialog[open]') || document.activeElement.matches('input')) return;
    wall.focus(index);
  }

  function giveBack(ids, isUndo) {
    wall.giveBack(ids, isUndo);
    onChange();
    if (isUndo) goTo(wall.at);
  }

  const buttons = [
    [[make('kbd', {}, 'm'), ' Move'], () => move(wall.picked())],
    [[icon(CROSS), make('span', { class: 'unseen' }, 'Select nothing')], () => wall.clear(), 'icon'],
  ];
  for (const [content, action, kind = 'button main'] of buttons) {
    const button = make('button', { type: 'button', class: kind }, ...content);
    button.addEventListener('click', action);
    bar.append(button);
  }
  wall.addEventListener('loaded', onChange);
  // A pulse comes when the server can be reached again.
  const load = () => wall.load().catch(complain);
  document.addEventListener('pulse', load);
  load();
  wall.addEventListener('chosen', () => {
    bar.hidden = !wall.chosen.size;
    words.textContent = wall.chosen.size ? `${wall.chosen.size.toLocaleString('en')} selected` : '';
  });
  const open = () => { if (wall.shots.length) openPreview(wall, { move, showIn }); };
  wall.addEventListener('open', open);

  document.addEventListener('keydown', (event) => {
    if (!isForPage(event)) return;
    const isOnWall = wall.element.contains(event.target) || event.target === document.body || event.target.id === 'main';
    if (isOnWall) wall.come();
    if (event.ctrlKey) {
      if (event.key !== 'a' || !isOnWall) return;
      event.preventDefault();
      wall.chooseAll();
      return;
    }
    if (isOnWall && wall.go(event)) {
      event.preventDefault();
      return;
    }
    const does = {
      x: () => { if (wall.shots.length) { wall.toggle(wall.at); wall.focus(wall.at); } },
      X: () => { if (wall.shots.length) { wall.chooseTo(wall.at); wall.focus(wall.at); } },
      m: () => move(wall.picked()),
      l: () => { if (wall.shots[wall.at]) location.assign(`/similar/${wall.shots[wall.at].id}`); },
      Escape: () => wall.clear(),
    };
    if (isOnWall) Object.assign(does, { ' ': open, Enter: open });
    if (!does[event.key]) return;
    event.preventDefault();
    does[event.key]();
  });
  help(keys);
}
