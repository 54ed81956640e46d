// The pictures most like one.

import { count } from './api.js';
import './live.js';
import { handle } from './shots.js';
import { Wall } from './wall.js';

const element = document.querySelector('#wall');
const total = document.querySelector('[data-total]');
const read = ({ pictures, compared }) => {
  total.textContent = `The nearest of ${count(compared, 'picture')}.`;
  return {
    total: pictures.length,
    next: null,
    shots: pictures.map((one) => ({ ...one, says: one.same_bytes ? 'same bytes' : `${one.folder ?? ''} ${one.distance.toFixed(2)}` })),
  };
};
const wall = new Wall(element, { read, label: (shot) => `${shot.name}, in ${shot.folder ?? 'the inbox'}` });
const onChange = () => { document.querySelector('#none').hidden = wall.total > 0; };
handle(wall, { onChange });
