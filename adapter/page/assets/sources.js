// The ways in.
import { byId, el, mark, show } from './dom.js';
import { number, span, when } from './format.js';

function line(s) {
  const state = el('td', {}, s.connected ? mark('ok', 'Connected') : mark('bad', 'Not connected'));
  if (s.server) state.append(el('small', {}, s.server));
  if (s.last_error) state.append(el('small', {}, `Last error: ${s.last_error}`));
  return el('tr', {}, el('th', { scope: 'row' }, s.name), state, el('td', { class: 'num' }, number(s.events ?? 0)),
    el('td', { class: 'num when' }, when(s.last_event)), el('td', { class: 'num' }, span(1000 * (s.lag_seconds ?? 0))),
    el('td', { class: 'num' }, number(s.errors ?? 0)));
}

export function showSources(list) {
  byId('sources-rows').replaceChildren(...(list ?? []).map(line));
  show(byId('sources-none'), !list?.length);
}
