// Dead letters: shown, replayed, removed.
import { byId, el, note, say, show } from './dom.js';
import { confirm, tell } from './dialog.js';
import { number, when } from './format.js';
import { ask } from './http.js';

const atOnce = 100; // are listed, the oldest
let shown = -1; // how many there were when the list was read
let total = 0;

function button(text, label, what) {
  const node = el('button', { type: 'button', 'aria-label': label }, text);
  node.addEventListener('click', () => what().catch((problem) => note(byId('letters-note'), problem.message, 'bad')));
  return node;
}

function line(letter) {
  const n = letter.sequence;
  return el('tr', { 'data-sequence': n }, el('td', { class: 'num' }, String(n)), el('td', { class: 'when' }, when(letter.time)),
    el('td', {}, letter.reason, el('small', {}, letter.subject), el('div', { class: 'buttons' }, button('Show', `Show dead letter ${n}`, () => open(n)),
      button('Replay', `Replay dead letter ${n}`, () => replay(n)), button('Remove', `Remove dead letter ${n}`, () => remove(n)))));
}

// textOf is an event as it came, which the endpoint tells in base64.
function textOf(event) {
  try {
    const bytes = Uint8Array.from(atob(event), (c) => c.charCodeAt(0));
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return event; // bytes that are no text
  }
}

async function open(n) {
  const letter = await ask('GET', `/deadletters/${n}`);
  if (letter.event) letter.event = textOf(letter.event);
  const content = Object.entries(letter).flatMap(([name, value]) => [
    el('dt', {}, name.replaceAll('_', ' ')), el('dd', {}, el('pre', {}, typeof value === 'string' ? value : JSON.stringify(value, null, 2)))]);
  await tell(`Dead letter ${n}`, [el('dl', { class: 'facts' }, ...content)]);
}

async function replay(n) {
  const text = el('p', {}, 'It is published again. If its cause is not gone, it comes back with a new number.');
  if (!(await confirm(`Replay dead letter ${n}?`, [text], 'Replay', 'primary'))) return;
  await ask('POST', `/deadletters/${n}/replay`);
  await read(`Dead letter ${n} was published again.`);
}

async function remove(n) {
  const text = el('p', {}, 'It is deleted for good. What it would have revoked stays as it is.');
  if (!(await confirm(`Remove dead letter ${n}?`, [text], 'Remove'))) return;
  await ask('DELETE', `/deadletters/${n}`);
  await read(`Dead letter ${n} was removed.`);
}

// fill leaves lines as they are that stay: a click on one that is replaced under the
// pointer would be lost.
function fill(list) {
  const rows = byId('letters-rows');
  const there = Array.from(rows.children, (row) => row.dataset.sequence);
  if (there.join() !== list.map((letter) => letter.sequence).join()) rows.replaceChildren(...list.map(line));
}

// read reads the list anew, after what is said was done.
async function read(said = '', by = 'person') {
  const list = (await ask('GET', '/deadletters', undefined, by)).dead_letters ?? [];
  if (list.length < atOnce) shown = total = list.length;
  fill(list);
  show(byId('letters-none'), list.length === 0);
  say(byId('letters-count'), total > list.length ? `the first ${number(list.length)} of ${number(total)}` : list.length ? number(list.length) : '');
  if (said) note(byId('letters-note'), said, 'ok');
}

// counted reads the list when their number is another one. Whoever is about to press
// a button is not disturbed.
export function counted(n) {
  if (n === null || n === shown || byId('letters-rows').contains(document.activeElement)) return;
  shown = total = n;
  first();
}

export function first() {
  read('', 'page').catch((problem) => note(byId('letters-note'), problem.message, 'bad'));
}
