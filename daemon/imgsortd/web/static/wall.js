// A wall of pictures in justified rows. Only those in sight are in the document, so that ten
// thousand scroll like ten; a screen reader is told of each its number and of how many.

import { get, icon, make, thumbnail, TICK } from './api.js';
import { listenToPointer } from './pointer.js';
import { Rows } from './rows.js';

const AHEAD = 1.2; // screens above and below that are kept ready
const CHUNK = 5000;
const FAST = 4; // screens a second: faster, and pictures wait until the scrolling calms;
const JUMP = .5; // so they do after a leap of so many screens, which may be the first of many
const CALM_MS = 100;

export class Wall extends EventTarget {
  constructor(element, { read, label = (shot) => shot.name }) {
    super();
    this.element = element;
    this.read = read;
    this.label = label;
    this.shots = [];
    this.total = Number(element.dataset.total);
    this.rows = new Rows();
    this.nodes = new Map();
    this.chosen = new Set();
    this.at = 0;
    this.anchor = null; // where a range begins,
    this.before = new Set(); // and what was chosen besides it
    this.isAllChosen = false;
    this.known = new Map(); // the place of each that was ever here, by its id
    this.removed = new Map();
    this.next = undefined; // where the next chunk begins; null after the last one
    this.isLoading = false;
    this.isToEnd = false;
    this.isRefused = false;
    this.lastY = scrollY;
    this.lastAt = 0;
    this.isFast = false;
    this.#listen();
  }

  // --- pictures -------------------------------------------------------------------------------

  // Reads all, chunk by chunk. Where that fails, the next call goes on from there.
  async load() {
    if (this.isLoading || this.isRefused) return;
    this.isLoading = true;
    try {
      while (this.next !== null) await this.#loadChunk();
      if (this.isToEnd) this.#goTo(this.shots.length - 1, this.isRange);
      this.isToEnd = false;
    } catch (error) {
      this.isRefused = !error.isPassing;
      throw error;
    } finally {
      this.isLoading = false;
    }
  }

  async #loadChunk() {
    const url = new URL(this.element.dataset.source, location.href);
    if (this.next) {
      url.searchParams.set('after', this.next);
      url.searchParams.set('limit', CHUNK);
    }
    const { total, shots, next } = this.read(await get(url.pathname + url.search));
    for (const shot of shots) {
      if (this.known.has(shot.id)) continue; // the order may be another since the chunk before
      this.known.set(shot.id, this.known.size);
      this.shots.push(shot);
      if (this.isAllChosen) this.chosen.add(shot.id);
    }
    this.next = next;
    // Some may have left since the server counted, or be moved by the page but not yet by the daemon.
    this.total = next === null ? this.shots.length : Math.max(this.shots.length, total - (this.known.size - this.shots.length));
    this.layOut();
    this.dispatchEvent(new Event('loaded'));
    if (this.isAllChosen) this.#tell();
  }

  picked() {
    if (!this.chosen.size) return this.shots[this.at] ? [this.shots[this.at]] : [];
    return this.shots.filter((shot) => this.chosen.has(shot.id));
  }

  take(ids) {
    const gone = new Set(ids);
    const place = this.#placeInSight();
    const taken = this.shots.filter((shot) => gone.has(shot.id));
    taken.forEach((shot) => this.removed.set(shot.id, shot));
    this.at -= this.shots.slice(0, this.at).filter((shot) => gone.has(shot.id)).length;
    this.shots = this.shots.filter((shot) => !gone.has(shot.id));
    this.at = Math.max(0, Math.min(this.at, this.shots.length - 1));
    this.total -= taken.length;
    ids.forEach((id) => this.chosen.delete(id));
    this.#anchorAt(null);
    for (const id of ids) {
      const node = this.nodes.get(id);
      this.nodes.delete(id);
      if (!node) continue;
      node.classList.add('going');
      node.removeAttribute('tabindex');
      setTimeout(() => node.remove(), 170);
    }
    this.layOut(place);
    this.#changed();
  }

  giveBack(ids, goThere) {
    const place = this.#placeInSight();
    const inOrder = (a, b) => this.known.get(a.id) - this.known.get(b.id);
    const back = ids.map((id) => this.removed.get(id)).filter(Boolean).sort(inOrder);
    const current = goThere && back.length ? back[0] : this.shots[this.at];
    back.forEach((shot) => this.removed.delete(shot.id));
    this.shots = [...this.shots, ...back].sort(inOrder);
    this.at = Math.max(0, this.shots.indexOf(current));
    this.total += back.length;
    this.#anchorAt(null);
    this.layOut(place);
    this.#changed();
  }

  #changed() {
    this.#tell();
    this.dispatchEvent(new Event('changed'));
  }

  // --- layout ---------------------------------------------------------------------------------

  layOut(place = this.#placeInSight()) {
    const style = getComputedStyle(this.element);
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const gap = Math.round(parseFloat(style.getPropertyValue('--gap')) * rem);
    const height = parseFloat(style.getPropertyValue('--row')) * rem;
    this.width = this.element.clientWidth;
    this.rows = new Rows(this.shots, { width: this.width, height, gap });
    const missing = Math.max(0, this.total - this.shots.length);
    this.element.style.height = `${Math.ceil(this.rows.height + missing * this.rows.perPicture)}px`;
    this.#keepInSight(place);
    this.render();
  }

  // What stands at the top of the window stays there when the rows become others.
  #placeInSight() {
    const top = -this.element.getBoundingClientRect().top;
    if (top <= 0 || !this.rows.length) return null;
    const focused = this.rows.row(this.rows.of(this.at));
    const row = this.#isInSight(focused) ? focused : this.rows.row(this.rows.at(top));
    return { shot: this.shots[row === focused ? this.at : row.start], y: row.y - top };
  }

  #keepInSight(place) {
    const index = place ? this.shots.indexOf(place.shot) : -1;
    if (index < 0) return;
    const y = this.rows.row(this.rows.of(index)).y + this.element.getBoundingClientRect().top;
    if (Math.abs(y - place.y) >= 1) scrollBy(0, y - place.y);
  }

  #isInSight(row) {
    const { top } = this.element.getBoundingClientRect();
    return top + row.y + row.height > 0 && top + row.y < innerHeight;
  }

  render() {
    if (!this.rows.length) {
      for (const node of this.nodes.values()) node.remove();
      this.nodes.clear();
      return;
    }
    const top = -this.element.getBoundingClientRect().top;
    const screen = innerHeight;
    const first = this.rows.at(top - AHEAD * screen);
    const last = this.rows.at(top + (1 + AHEAD) * screen);
    const wanted = new Map();
    const focused = this.rows.of(this.at);
    if (focused < first) this.#place(focused, wanted);
    for (let row = first; row <= last; row += 1) this.#place(row, wanted);
    if (focused > last) this.#place(focused, wanted);
    for (const [id, node] of this.nodes) {
      if (wanted.has(id)) continue;
      const image = node.firstElementChild;
      if (!image.complete) image.removeAttribute('src'); // what was passed need not come any more
      node.remove();
      this.nodes.delete(id);
    }
    let cursor = this.element.firstElementChild;
    for (const node of wanted.values()) {
      while (cursor?.classList.contains('going')) cursor = cursor.nextElementSibling;
      if (node === cursor) cursor = cursor.nextElementSibling;
      else this.element.insertBefore(node, cursor);
    }
    if (!this.isFast) this.#showPictures(wanted);
  }

  #place(number, wanted) {
    const row = this.rows.row(number);
    for (const { index, left, width } of this.rows.boxes(row)) {
      const shot = this.shots[index];
      const node = this.nodes.get(shot.id) ?? this.#make(shot);
      const { style } = node;
      style.left = `${left}px`;
      style.top = `${row.y}px`;
      style.width = `${width}px`;
      style.height = `${row.height}px`;
      node.setAttribute('aria-posinset', index + 1);
      node.setAttribute('aria-setsize', this.total);
      node.setAttribute('aria-selected', String(this.chosen.has(shot.id)));
      node.tabIndex = index === this.at ? 0 : -1;
      this.nodes.set(shot.id, node);
      wanted.set(shot.id, node);
    }
  }

  #make(shot) {
    const image = make('img', { alt: this.label(shot), width: 320, height: 320, decoding: 'async', draggable: 'false' });
    const node = make('div', { class: 'shot', role: 'option' }, image, make('span', { class: 'tick', 'aria-hidden': 'true' }, icon(TICK)));
    if (shot.pinned) node.append(make('span', { class: 'pinned', title: 'Put here by you' }, make('span', { class: 'unseen' }, 'put here by you')));
    if (shot.says) node.append(make('span', { class: 'says' }, shot.says));
    node.dataset.id = shot.id;
    image.addEventListener('error', async () => {
      node.classList.add('broken');
      const response = await fetch(image.src).catch(() => null);
      node.dataset.why = (await response?.json().catch(() => null))?.error ?? 'cannot be shown';
    });
    return node;
  }

  #showPictures(nodes) {
    for (const [id, node] of nodes) {
      const image = node.firstElementChild;
      if (image.hasAttribute('src')) continue;
      image.src = thumbnail(id, this.shots[this.index(node)].key);
    }
  }

  index(node) { return Number(node.getAttribute('aria-posinset')) - 1; }

  // --- focus and choice ---------------------------------------------------------------------------

  focus(index) {
    if (!this.shots.length) return document.querySelector('#main').focus();
    this.at = Math.max(0, Math.min(index, this.shots.length - 1));
    const row = this.rows.row(this.rows.of(this.at));
    const box = this.element.getBoundingClientRect();
    const bar = document.querySelector('.bar')?.offsetHeight ?? 0;
    const top = box.top + row.y - bar - 12;
    const bottom = box.top + row.y + row.height + 12 - innerHeight;
    if (top < 0) scrollBy(0, top);
    else if (bottom > 0) scrollBy(0, bottom);
    this.render();
    return this.nodes.get(this.shots[this.at].id)?.focus({ preventScroll: true });
  }

  toggle(index) {
    const { id } = this.shots[index];
    if (this.chosen.has(id)) this.chosen.delete(id);
    else this.chosen.add(id);
    this.#anchorAt(index);
    this.#mark();
  }

  #anchorAt(index) {
    this.anchor = index;
    this.before = new Set(this.chosen);
    this.isAllChosen = false;
  }

  // A range reaches from where it began to here; what it reached before and no longer does is let go.
  chooseTo(index) {
    if (this.anchor === null || !this.chosen.size) this.#anchorAt(this.at);
    this.chosen = new Set(this.before);
    const [from, to] = [Math.min(this.anchor, index), Math.max(this.anchor, index)];
    for (let one = from; one <= to; one += 1) this.chosen.add(this.shots[one].id);
    this.#mark();
  }

  chooseAll() {
    for (const shot of this.shots) this.chosen.add(shot.id);
    this.#anchorAt(null);
    this.isAllChosen = true; // also those that are still to come
    this.#mark();
  }

  clear() {
    this.chosen.clear();
    this.#anchorAt(null);
    this.#mark();
  }

  #mark() {
    for (const [id, node] of this.nodes) node.setAttribute('aria-selected', String(this.chosen.has(id)));
    this.#tell();
  }

  #tell() {
    this.element.classList.toggle('choosing', this.chosen.size > 0);
    this.dispatchEvent(new Event('chosen'));
  }

  // Whoever has scrolled away with no picture in focus goes on with those in sight.
  come() {
    if (!this.rows.length || this.element.contains(document.activeElement)) return;
    if (this.#isInSight(this.rows.row(this.rows.of(this.at)))) return;
    this.at = this.rows.row(this.rows.at(innerHeight / 3 - this.element.getBoundingClientRect().top)).start;
    this.render();
  }

  // Moves by a key; returns whether it was one of the wall's.
  go(event) {
    const page = Math.max(1, Math.floor(innerHeight / (this.rows.row(0)?.height ?? innerHeight)) - 1);
    const to = {
      ArrowLeft: () => this.at - 1,
      ArrowRight: () => this.at + 1,
      ArrowUp: () => this.rows.beside(this.at, -1),
      ArrowDown: () => this.rows.beside(this.at, 1),
      PageUp: () => this.rows.beside(this.at, -page),
      PageDown: () => this.rows.beside(this.at, page),
      Home: () => 0,
      End: () => this.shots.length - 1,
    }[event.key];
    if (!to || !this.shots.length) return false;
    this.element.classList.add('by-key');
    this.#goTo(to(), event.shiftKey);
    // The very end may still be to come.
    this.isToEnd = event.key === 'End' && this.next !== null;
    this.isRange = event.shiftKey;
    return true;
  }

  #goTo(wanted, isRange) {
    const index = Math.max(0, Math.min(wanted, this.shots.length - 1));
    if (isRange) this.chooseTo(index);
    this.focus(index);
  }

  #listen() {
    let waiting = false;
    let calm = null;
    addEventListener('scroll', () => {
      const now = performance.now();
      const screens = Math.abs(scrollY - this.lastY) / innerHeight;
      this.isFast = screens > JUMP || screens / Math.max(.001, (now - this.lastAt) / 1000) > FAST;
      [this.lastY, this.lastAt] = [scrollY, now];
      clearTimeout(calm);
      calm = setTimeout(() => { this.isFast = false; this.render(); }, CALM_MS);
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; this.render(); });
    }, { passive: true });
    new ResizeObserver(() => { if (this.element.clientWidth !== this.width) this.layOut(); }).observe(this.element);
    this.element.addEventListener('focusin', (event) => {
      const node = event.target.closest('.shot');
      if (!node) return;
      const index = this.index(node);
      if (index === this.at) return;
      this.nodes.get(this.shots[this.at]?.id)?.setAttribute('tabindex', '-1');
      this.at = index;
      node.tabIndex = 0;
    });
    listenToPointer(this);
  }
}
