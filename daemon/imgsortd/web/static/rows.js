// How the pictures of a wall lie: in rows as wide as the wall, each of a height of its own.
// Nothing here knows the document.

const WIDEST = 3.2;
const NARROWEST = 0.45;

const aspect = (shot) => (shot.w && shot.h ? Math.min(WIDEST, Math.max(NARROWEST, shot.w / shot.h)) : 1);

export class Rows {
  // In pixels: the wall's width, the height that rows should have, and the gap between pictures.
  constructor(shots = [], { width = 1, height: wanted = 1, gap = 0 } = {}) {
    this.shots = shots;
    this.gap = gap;
    this.rows = [];
    let y = 0;
    for (let start = 0; start < shots.length;) {
      let end = start;
      let sum = 0;
      while (end < shots.length && sum * wanted + gap * (end - start) < width) sum += aspect(shots[end++]);
      const room = width - gap * (end - start - 1);
      const isFull = sum * wanted + gap * (end - start) >= width;
      const height = isFull ? room / sum : Math.min(wanted, room / sum);
      this.rows.push({ start, end, y, height });
      y += height + gap;
      start = end;
    }
    this.height = Math.max(0, y - gap);
    this.perPicture = shots.length ? y / shots.length : wanted / Math.max(1, width / wanted);
  }

  get length() { return this.rows.length; }

  row(number) { return this.rows[number]; }

  // The row at a height, and that of a picture: their numbers.
  at(y) { return this.#last(y, 'y'); }

  of(index) { return this.#last(index, 'start'); }

  // The last row of which something that grows from row to row is no more than a value.
  #last(value, key) {
    let low = 0;
    let high = this.rows.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.rows[middle][key] <= value) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  // Where the pictures of a row stand in it.
  boxes({ start, end, height }) {
    let left = 0;
    return this.shots.slice(start, end).map((shot, number) => {
      const box = { index: start + number, left, width: aspect(shot) * height };
      left += box.width + this.gap;
      return box;
    });
  }

  // The picture so many rows below one (or above), nearest to its middle.
  beside(index, rows) {
    const number = this.of(index);
    const target = Math.max(0, Math.min(this.length - 1, number + rows));
    if (target === number) return rows < 0 ? 0 : this.shots.length - 1;
    const middle = ({ left, width }) => left + width / 2;
    const own = middle(this.boxes(this.rows[number])[index - this.rows[number].start]);
    const away = (box) => Math.abs(middle(box) - own);
    return this.boxes(this.rows[target]).reduce((best, box) => (away(box) < away(best) ? box : best)).index;
  }
}
