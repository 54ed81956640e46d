// Mouse and finger on a wall of pictures: a click opens, with Ctrl or on the tick it selects, with
// Shift a range; a finger that stays selects, and then each touch does.

const LONG_PRESS_MS = 450;

export function listenToPointer(wall) {
  const { element } = wall;
  let press = null;
  let wasLong = false;

  element.addEventListener('pointerdown', (event) => {
    wall.isToEnd = false;
    element.classList.remove('by-key');
    const node = event.target.closest('.shot');
    wasLong = false;
    if (!node || event.pointerType === 'mouse') return;
    press = setTimeout(() => { wasLong = true; wall.toggle(wall.index(node)); }, LONG_PRESS_MS);
  });
  for (const name of ['pointerup', 'pointercancel', 'pointerleave']) element.addEventListener(name, () => clearTimeout(press));
  element.addEventListener('contextmenu', (event) => { if (wasLong) event.preventDefault(); });
  element.addEventListener('click', (event) => {
    const node = event.target.closest('.shot');
    const isEndOfLong = wasLong;
    wasLong = false;
    if (!node || isEndOfLong) return;
    const index = wall.index(node);
    const selects = event.ctrlKey || event.metaKey || event.target.closest('.tick') || (wall.chosen.size && event.pointerType !== 'mouse');
    if (event.shiftKey) wall.chooseTo(index);
    else if (selects) wall.toggle(index);
    wall.focus(index);
    if (!event.shiftKey && !selects) wall.dispatchEvent(new Event('open'));
  });
}
