// The chart of deliveries: bars on a logarithmic scale, because ten milliseconds
// and ten seconds must both be seen.
import { byId, say } from './dom.js';
import { plural, span, when } from './format.js';

const kept = 120;
const size = { width: 600, height: 200, left: 52, right: 8, top: 8, bottom: 20 };
const lines = [1, 10, 100, 1000, 10000]; // milliseconds
const deliveries = [];

function svg(name, attributes, text) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

const base = size.height - size.bottom;

function y(milliseconds) {
  const part = Math.log10(Math.max(0.5, milliseconds) / 0.5) / Math.log10(10000 / 0.5);
  return base - Math.min(1, part) * (base - size.top);
}

function grid() {
  return lines.flatMap((ms) => [
    svg('line', { class: 'grid', x1: size.left, x2: size.width - size.right, y1: y(ms), y2: y(ms) }),
    svg('text', { class: 'label', x: size.left - 6, y: y(ms) + 4, 'text-anchor': 'end' }, ms < 1000 ? `${ms} ms` : `${ms / 1000} s`),
  ]);
}

// room is how many bars there is room for, each at least four pixels wide.
const room = () => Math.min(kept, Math.floor((size.width - size.left - size.right) / 4));
const step = () => (size.width - size.left - size.right) / room();

function bar(d, i, shown) {
  const top = y(d.took_ms);
  const x = size.width - size.right - (shown.length - i) * step();
  const kind = d.pending > 0 ? 'bar bad' : 'bar';
  return svg('rect', { class: kind, x: x + 0.5, width: step() - 1, y: top, height: Math.max(1, base - top), rx: 1 });
}

function ends(shown) {
  if (shown.length === 0) return [];
  const first = size.width - size.right - shown.length * step();
  const labels = [svg('text', { class: 'label', x: size.width - size.right, y: size.height - 5, 'text-anchor': 'end' }, when(shown.at(-1).time))];
  if (shown.length > room() / 2) labels.push(svg('text', { class: 'label', x: first, y: size.height - 5 }, when(shown[0].time)));
  return labels;
}

function summary() {
  if (deliveries.length === 0) return 'Nothing has been delivered since the adapter started.';
  const done = deliveries.filter((d) => d.pending === 0).map((d) => d.took_ms).sort((a, b) => a - b);
  const late = deliveries.length - done.length;
  const tail = late ? ` ${plural(late, 'change has', 'changes have')} not reached every gateway within ten seconds.` : '';
  if (done.length === 0) return tail.trim();
  return `Half within ${span(done[Math.floor(done.length / 2)])}, the slowest of ${done.length} in ${span(done.at(-1))}.${tail}`;
}

// The picture is as wide as its place, so that letters have their size everywhere.
function draw() {
  size.width = Math.max(240, byId('chart').clientWidth);
  const shown = deliveries.slice(-room());
  const picture = svg('svg', { viewBox: `0 0 ${size.width} ${size.height}`, role: 'img', 'aria-labelledby': 'speed-h chart-said' });
  picture.append(...grid(), svg('line', { class: 'base', x1: size.left, x2: size.width - size.right, y1: base, y2: base }), ...shown.map(bar), ...ends(shown));
  byId('chart').replaceChildren(picture);
  say(byId('chart-said'), summary());
}

export function take(list, whole) {
  if (whole) deliveries.length = 0;
  deliveries.push(...list);
  deliveries.splice(0, deliveries.length - kept);
  draw();
}

addEventListener('resize', draw);
