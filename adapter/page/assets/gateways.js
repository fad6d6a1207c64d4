// The table of gateways. Only the rows that can be seen are in the document, so
// that a thousand cost what twenty do.
import { byId, el, mark, note, say, show } from './dom.js';
import { number, when } from './format.js';
import { showGateways } from './status.js';

const patience = 3000; // milliseconds that a gateway may take before it is behind
const spare = 6; // rows above and below those that are seen
const all = new Map(); // by key
const versions = []; // of the log, with their times, for as long as our patience
let listed = []; // what the table shows, in its order
let order = { column: 'state', down: false };
let log = 0;
let height = 0; // of a row
let told = false; // which gateways there are

const rank = { behind: 0, gone: 1, catching: 2, current: 3 };
const words = { behind: ['bad', 'Behind'], gone: ['warn', 'Not connected'], catching: ['wait', 'Catching up'], current: ['ok', 'Up to date'] };

const columns = [
  { id: 'state', title: 'State', of: (g) => rank[g.state], text: (g) => mark(...words[g.state]) },
  { id: 'name', title: 'Name', of: (g) => g.name, text: (g) => g.name },
  { id: 'lag', title: 'Changes behind', of: (g) => -g.lag, text: behindBy, number: true },
  { id: 'version', title: 'Confirmed version', of: (g) => g.version, text: (g) => (g.version ? String(g.version) : '–'), number: true },
  { id: 'nacks', title: 'Refused updates', of: (g) => -g.nacks, text: (g) => (g.nacks ? mark('warn', number(g.nacks)) : '0'), number: true },
  { id: 'protocols', title: 'Protocols', of: (g) => (g.protocols ?? []).join(', '), text: (g) => (g.protocols ?? []).join(', ') },
  { id: 'replica', title: 'Adapter', of: (g) => g.replica, text: (g) => g.replica },
  { id: 'tenants', title: 'Tenants', of: (g) => (g.tenants ?? []).join(', '), text: (g) => (g.tenants ?? []).join(', ') || 'all' },
  { id: 'since', title: 'Connected since', of: (g) => g.since, text: (g) => when(g.since) },
  { id: 'address', title: 'Address', of: (g) => g.address, text: (g) => g.address },
];

function behindBy(g) {
  if (!g.connected) return '–';
  return g.version ? number(g.lag) : 'all'; // it has confirmed nothing yet
}

// take changes what is known of gateways by a difference.
export function take(diff) {
  told = true;
  const old = new Map(all);
  if (diff.whole) all.clear();
  for (const key of diff.gone ?? []) all.delete(key);
  for (const g of diff.set ?? []) all.set(g.key, place(g, old.get(g.key)));
  for (const m of diff.moved ?? []) {
    const g = all.get(m.key);
    if (g) place(Object.assign(g, m), g);
  }
}

// place notes up to where in the log a gateway has confirmed all that it wants, and
// since when something is missing. What it confirmed on one of its streams may be
// newer, and says nothing of the others.
function place(g, old) {
  g.caught = log - g.lag;
  g.missing = g.lag === 0 ? 0 : old?.missing || performance.now();
  return g;
}

// forget leaves nothing of what was told.
export function forget() {
  all.clear();
  listed = [];
  told = false;
}

export function failed(why) { note(byId('gateways-note'), why ?? '', 'warn'); }

// at remembers when the log came to a version.
export function at(version) {
  log = version;
  versions.push([performance.now(), version]);
}

function expected() {
  const past = performance.now() - patience;
  while (versions.length > 1 && versions[1][0] <= past) versions.shift();
  return versions.length && versions[0][0] <= past ? versions[0][1] : 0;
}

function stateOf(g, due) {
  if (!g.connected) return 'gone';
  if (g.lag === 0 || (due > 0 && g.caught >= due)) return 'current';
  return performance.now() - g.missing < patience ? 'catching' : 'behind';
}

// refresh says anew who is behind, and lists who is asked for in the order asked for.
export function refresh() {
  if (!told) return;
  const due = expected();
  const counts = { current: 0, catching: 0, behind: 0, gone: 0 };
  for (const g of all.values()) {
    g.state = stateOf(g, due);
    counts[g.state]++;
  }
  showGateways(counts);
  const words = byId('gateways-filter').value.trim().toLowerCase().split(/\s+/);
  const only = byId('gateways-only').value;
  listed = [...all.values()].filter((g) => matches(g, words, only)).sort(compare);
  say(byId('gateways-count'), listed.length === all.size ? number(all.size) : `${number(listed.length)} of ${number(all.size)}`);
  say(byId('gateways-none'), all.size ? 'No gateway matches.' : 'No gateway is known.');
  show(byId('gateways-none'), listed.length === 0);
  draw();
}

function matches(g, words, only) {
  if (only === 'refused' ? !g.nacks : only && g.state !== only) return false;
  const text = `${g.name} ${g.address} ${g.replica} ${(g.tenants ?? []).join(' ')}`.toLowerCase();
  return words.every((word) => text.includes(word));
}

const collator = new Intl.Collator('en', { numeric: true });

function compare(a, b) {
  const of = columns.find((c) => c.id === order.column).of;
  const [x, y] = [of(a), of(b)];
  const by = typeof x === 'number' ? x - y : collator.compare(x, y);
  return (order.down ? -by : by) || rank[a.state] - rank[b.state] || collator.compare(a.name, b.name);
}

// draw puts the rows into the document that the scroller shows.
function draw() {
  const scroller = byId('gateways-scroller');
  const body = byId('gateways-rows');
  height ||= rowHeight(body);
  const first = Math.max(0, Math.floor(scroller.scrollTop / height) - spare);
  const count = Math.min(listed.length - first, Math.ceil((scroller.clientHeight || 600) / height) + 2 * spare);
  byId('gateways-table').setAttribute('aria-rowcount', listed.length + 1);
  fit(body, Math.max(0, count));
  for (let i = 0; i < count; i++) fill(body.children[i + 1], listed[first + i], first + i);
  body.firstElementChild.firstElementChild.style.height = `${first * height}px`;
  body.lastElementChild.firstElementChild.style.height = `${Math.max(0, listed.length - first - count) * height}px`;
}

function rowHeight(body) {
  fit(body, 1);
  const probe = body.children[1];
  probe.children[0].replaceChildren(mark('ok', 'Up to date'));
  return probe.offsetHeight || 36;
}

function spacer() {
  return el('tr', { class: 'spacer', 'aria-hidden': 'true' }, el('td', { colspan: columns.length }));
}

// fit has the body hold a number of rows between its two spacers.
function fit(body, count) {
  if (!body.firstElementChild) body.append(spacer(), spacer());
  while (body.children.length - 2 > count) body.children[1].remove();
  while (body.children.length - 2 < count) {
    body.lastElementChild.before(el('tr', {}, ...columns.map((c) => el(c.id === 'name' ? 'th' : 'td', { class: `c-${c.id}${c.number ? ' num' : ''}`, scope: c.id === 'name' ? 'row' : null }))));
  }
}

function fill(line, g, index) {
  line.setAttribute('aria-rowindex', index + 2);
  if (line.className !== g.state) line.className = g.state;
  columns.forEach((c, i) => {
    const cell = line.children[i];
    const text = c.text(g);
    if (typeof text === 'string') say(cell, text);
    else if (cell.textContent !== text.textContent) cell.replaceChildren(text);
  });
  line.children[4].title = g.last_nack ?? '';
}

function head(c) {
  const button = el('button', { type: 'button', class: 'sort' }, c.title);
  button.addEventListener('click', () => {
    order = { column: c.id, down: order.column === c.id && !order.down };
    heads();
    refresh();
  });
  return el('th', { scope: 'col', class: `c-${c.id}${c.number ? ' num' : ''}` }, button);
}

function heads() {
  columns.forEach((c, i) => {
    const cell = byId('gateways-head').children[i];
    if (c.id === order.column) cell.setAttribute('aria-sort', order.down ? 'descending' : 'ascending');
    else cell.removeAttribute('aria-sort');
  });
}

// start makes the table. Who is behind comes first until something else is asked for.
export function start() {
  byId('gateways-head').append(...columns.map(head));
  heads();
  let waits = false;
  byId('gateways-scroller').addEventListener('scroll', () => {
    if (waits) return;
    waits = true;
    requestAnimationFrame(() => { waits = false; draw(); });
  }, { passive: true });
  addEventListener('resize', () => { height = 0; draw(); });
  const again = () => { byId('gateways-scroller').scrollTop = 0; refresh(); };
  byId('gateways-filter').addEventListener('input', again);
  byId('gateways-only').addEventListener('change', again);
}

